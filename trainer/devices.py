"""Is the device there that a run is to use? Asked before anything is read."""

import torch

from core.errors import Invalid

KNOWN = ("cpu", "cuda", "mps")


def check_device(device: torch.device | str) -> None:
    """Raises Invalid: there is none of that name, or not in this machine."""
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise Invalid(f"there is no device {device!r}; use cpu, cuda or mps") from error
    match asked.type:
        case "cuda" if not torch.cuda.is_available():
            raise Invalid(
                "this machine has no CUDA device that torch sees: install a build of torch with "
                "CUDA and the driver, or use the device cpu"
            )
        case "cuda" if asked.index is not None and asked.index >= torch.cuda.device_count():
            raise Invalid(f"there is no {asked}; this machine has {torch.cuda.device_count()}")
        case "mps" if not torch.backends.mps.is_available():
            raise Invalid("this machine has no Apple GPU that torch sees; use the device cpu")
        case kind if kind not in KNOWN:
            raise Invalid(f"nothing here runs on {kind}; use cpu, cuda or mps")
