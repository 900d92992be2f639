"""A loaded model, made ready to draw with as a worker does; its tensors and their names stay."""

from diffusion.lean_blocks import make_lean
from diffusion.loading import Components
from diffusion.text_memory import remember_projections
from diffusion.twin_rows import share_twins


def prepare_to_draw(components: Components) -> None:
    """Let its UNet remember texts and share what twin rows have in common, and its blocks be lean.

    Not for training: nothing of what is computed can be differentiated.
    """
    remember_projections(components.unet)
    share_twins(components.unet)
    for module in (components.unet, components.vae):
        make_lean(module)
