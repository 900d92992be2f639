"""The VAE in the original layout: levels counted from the finest, attention as convolutions."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from diffusion.originals.rules import Rule

PREFIX = "first_stage_model."
ATTENTION = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out", "group_norm": "norm"}
# What older diffusers folders call the same.
LEGACY = {"query": "q", "key": "k", "value": "v", "proj_attn": "proj_out"}
ATTENTIONS = re.compile(r"mid_block\.attentions\.0\.(.+)\.(weight|bias)$")


def vae_rules(names: Sequence[str], config: Mapping[str, Any]) -> list[Rule]:
    """For the parameters `names` of a VAE with this config."""
    return [_rule(name, len(config["block_out_channels"])) for name in names]


def _rule(name: str, levels: int) -> Rule:
    key = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda found: f"mid.block_{int(found[1]) + 1}", key)
    key = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(
        r"up_blocks\.(\d+)\.(resnets\.(\d+)|upsamplers\.0)",
        lambda found: (
            f"up.{levels - 1 - int(found[1])}." + (f"block.{found[3]}" if found[3] else "upsample")
        ),
        key,
    )
    if attention := ATTENTIONS.search(key):
        layer, kind = attention[1], attention[2]
        layer_key = (ATTENTION | LEGACY).get(layer, layer)
        key = key[: attention.start()] + f"mid.attn_1.{layer_key}.{kind}"
        if kind == "weight" and layer_key != "norm":
            return Rule(PREFIX + key, (name,), "1x1")
    return Rule(PREFIX + key, (name,))
