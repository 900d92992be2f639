"""Is the learning rate of stage 2 one for a model of this size? Asked before anything is queued.

The default was found on the shipped model. On one of true size it is hundreds of times what was
published, and makes noise of its pictures, after hours.
"""

from math import prod
from pathlib import Path, PurePosixPath

from core.errors import Invalid
from core.manifests import Manifest
from core.model_files import ModelFiles
from core.specs import ErasureSpec, SteeringOptions

MANY_PARAMETERS = 100_000_000
DEFAULT = SteeringOptions().learning_rate


def check_learning_rate(spec: ErasureSpec, base: Path, manifest: Manifest | None) -> None:
    """
    Args:
        base: the folder of the base model; where its UNet is not there, nothing is said.
        manifest: what the folder should hold; None: nobody said.

    Raises:
        Invalid: the rate is the default, which a stored spec has as if it had been given.
        UntrustedModel: a file of weights is none, or other files are there than should be.
    """
    if spec.steering is None or spec.steering.learning_rate != DEFAULT:
        return
    count = _parameters(ModelFiles(base, manifest))
    if count > MANY_PARAMETERS:
        raise Invalid(
            f"steering.learning_rate: the default {DEFAULT:g} is for models as small as the "
            f"shipped one, and the UNet of {spec.base_model} has {count // 1_000_000} million "
            'parameters; give `learning_rate` (published: 1e-6), or "published-sd1" as `steering`'
        )


def _parameters(files: ModelFiles) -> int:
    """Every tensor once, whatever files hold it: shards, or variants in another dtype."""
    sizes: dict[str, int] = {}
    for name in files.below("unet"):
        if PurePosixPath(name).suffix == ".safetensors":
            sizes |= {one.name: prod(one.shape) for one in files.header(name)}
    return sum(sizes.values())
