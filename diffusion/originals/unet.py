"""The UNet in the original layout: one numbered list of blocks down, and one up."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion.originals.rules import Rule, renamed, replaced

PREFIX = "model.diffusion_model."
OUTSIDE = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
BLOCK = re.compile(
    r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\."
)


def unet_rules(names: Sequence[str], config: Mapping[str, Any]) -> list[Rule]:
    """For the parameters `names` of a UNet with this config."""
    return renamed(names, lambda name: PREFIX + _key(name, config))


def original_module(name: str, config: Mapping[str, Any]) -> str:
    """The original name of a module of the UNet, without prefix."""
    return _key(f"{name}.weight", config).removesuffix(".weight")


def _key(name: str, config: Mapping[str, Any]) -> str:
    place = BLOCK.match(name)
    if place is None:
        return _of_resnet(replaced(name, OUTSIDE), is_resnet=name.startswith("mid_block.resnets"))
    way, block, kind, number = place[1], int(place[2]), place[3], int(place[4])
    rest = name[place.end() :]
    layers = int(config["layers_per_block"])
    # Down, a block is its layers and a downsampler; up, it has one layer more, and the upsampler
    # stands behind the last of them.
    if way == "down":
        position = 1 + block * (layers + 1) + (layers if kind == "downsamplers" else number)
        head = f"input_blocks.{position}"
    else:
        position = block * (layers + 1) + (layers if kind == "upsamplers" else number)
        head = f"output_blocks.{position}"
    match kind:
        case "resnets":
            return f"{head}.0." + _of_resnet(rest, is_resnet=True)
        case "attentions":
            return f"{head}.1.{rest}"
        case "downsamplers":
            return f"{head}.0." + rest.replace("conv.", "op.", 1)
        case _:
            attends = "CrossAttn" in config["up_block_types"][block]
            return f"{head}.{2 if attends else 1}.{rest}"


def _of_resnet(rest: str, *, is_resnet: bool) -> str:
    if not is_resnet:
        return rest
    *head, layer, kind = rest.split(".")
    return ".".join([*head, RESNET.get(layer, layer), kind])
