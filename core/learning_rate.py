"""Is the learning rate of stage 2 one for a model of this size? Asked before anything is queued.

The default was found on the shipped model. On one of true size it is hundreds of times what was
published, and makes noise of its pictures, after hours.
"""

from math import prod
from pathlib import Path

from core.errors import Invalid
from core.safetensors_header import read_header
from core.specs import ErasureSpec, SteeringOptions

MANY_PARAMETERS = 100_000_000
DEFAULT = SteeringOptions().learning_rate


def check_learning_rate(spec: ErasureSpec, base: Path) -> None:
    """
    Args:
        base: the folder of the base model; where its UNet is not there, nothing is said.

    Raises:
        Invalid: the rate is the default, which a stored spec has as if it had been given.
        UntrustedModel: a file of weights is none.
    """
    if spec.steering is None or spec.steering.learning_rate != DEFAULT:
        return
    count = _parameters(base / "unet")
    if count > MANY_PARAMETERS:
        raise Invalid(
            f"steering.learning_rate: the default {DEFAULT:g} is for models as small as the "
            f"shipped one, and the UNet of {spec.base_model} has {count // 1_000_000} million "
            'parameters; give `learning_rate` (published: 1e-6), or "published-sd1" as `steering`'
        )


def _parameters(folder: Path) -> int:
    """Every tensor once, whatever files hold it: shards, or variants in another dtype."""
    sizes: dict[str, int] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            tensors = read_header(file, path.stat().st_size, path.name)
        sizes |= {one.name: prod(one.shape) for one in tensors}
    return sum(sizes.values())
