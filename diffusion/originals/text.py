"""Text encoders in the original layout: CLIP as transformers has it, and OpenCLIP in its own."""

import re
from collections.abc import Sequence

from diffusion.originals.rules import Rule, renamed, replaced

CLIP = {"sd1": "cond_stage_model.transformer.", "sdxl": "conditioner.embedders.0.transformer."}
OPEN_CLIP = {"sd2": "cond_stage_model.model.", "sdxl": "conditioner.embedders.1.model."}
OUTSIDE = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm": "ln_final",
}
LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
PLACE = re.compile(r"encoder\.layers\.(\d+)\.(.+)$")
QUERY = "self_attn.q_proj."


def text_rules(names: Sequence[str], family: str, *, part: str) -> list[Rule]:
    """For the parameters `names` of `text_encoder` or `text_encoder_2` in a family."""
    names = [name for name in names if not name.endswith("position_ids")]
    if part == "text_encoder" and family in CLIP:
        return renamed(names, lambda name: CLIP[family] + "text_model." + _bare(name))
    rules = []
    for name in names:
        rules += _open_clip(name, OPEN_CLIP[family])
    return rules


def _open_clip(name: str, prefix: str) -> list[Rule]:
    """None for keys and values: they stand with their query."""
    bare = _bare(name)
    if bare == "text_projection.weight":
        return [Rule(f"{prefix}text_projection", (name,), "transposed")]
    place = PLACE.match(bare)
    if place is None:
        return [Rule(prefix + replaced(bare, OUTSIDE), (name,))]
    block, rest = f"{prefix}transformer.resblocks.{place[1]}.", place[2]
    if rest.startswith(QUERY):
        parts = tuple(name.replace("q_proj", f"{letter}_proj") for letter in "qkv")
        return [Rule(f"{block}attn.in_proj_{rest.removeprefix(QUERY)}", parts, "stacked")]
    if rest.startswith(("self_attn.k_proj.", "self_attn.v_proj.")):
        return []
    return [Rule(block + replaced(rest, LAYER), (name,))]


def _bare(name: str) -> str:
    """transformers writes the names of CLIPTextModel with this prefix, or since 5.0 without."""
    return name.removeprefix("text_model.")
