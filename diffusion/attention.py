"""Where a UNet reads text, and the names of its attention parameters."""

from collections.abc import Callable

from diffusers import UNet2DConditionModel
from torch import nn

from core.errors import ModelUnsupported

CROSS_ATTENTION = "attn2"
SELF_ATTENTION = "attn1"


def reads_text(parameter: str) -> bool:
    """Is it the weight of a key or value projection of cross-attention?"""
    return parameter.endswith((f"{CROSS_ATTENTION}.to_k.weight", f"{CROSS_ATTENTION}.to_v.weight"))


def text_projections(unet: UNet2DConditionModel) -> dict[str, nn.Linear]:
    """Every key and value projection of cross-attention, by module name.

    They are all that reads the text embedding: linear, without bias, from the same input. So
    a linear map of that input can be folded into them.

    Raises:
        ModelUnsupported: a projection has a bias or another input, or there is none.
    """
    width = unet.config.cross_attention_dim
    found = {}
    for name, module in unet.named_modules():
        if not name.endswith((f"{CROSS_ATTENTION}.to_k", f"{CROSS_ATTENTION}.to_v")):
            continue
        if (
            not isinstance(module, nn.Linear)
            or module.bias is not None
            or module.in_features != width
        ):
            raise ModelUnsupported(f"{name} is not a plain linear map of the text embedding")
        found[name] = module
    if not found:
        raise ModelUnsupported("this UNet has no cross-attention to text")
    return found


# What the literature trains or edits, as groups of parameters.
GROUPS: dict[str, Callable[[str], bool]] = {
    "text projections": reads_text,
    "queries": lambda name: f"{CROSS_ATTENTION}.to_q." in name,
    "self-attention": lambda name: f".{SELF_ATTENTION}." in name,
}


def parameter_names(unet: UNet2DConditionModel, group: str) -> list[str]:
    """The parameters of one of the `GROUPS`, in the UNet's order."""
    return [name for name, _ in unet.named_parameters() if GROUPS[group](name)]
