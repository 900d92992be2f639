"""CLIP's tokenizer, which every Stable Diffusion 1.x, 2.x and XL reads prompts with.

`clip_merges.txt.gz` holds the 48,894 byte-pair merges of the published vocabulary in their order
(see NOTICE). All else follows from them: tokens are the 256 bytes, the same at the end of a word,
the merges, and two marks.
"""

import gzip
import json
from importlib import resources
from pathlib import Path
from typing import Any

MERGES = "clip_merges.txt.gz"
END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"
LENGTH = 77
# Bytes that print as themselves; the others stand as the characters from U+0100 on.
PRINTED = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]


def write_tokenizer(folder: Path, *, pad: str) -> None:
    """Write the folder of a tokenizer.

    Args:
        pad: the token after the end: `END` in 1.x and for CLIP of XL, else `!`.
    """
    folder.mkdir(parents=True)
    merges = _merges()
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    (folder / "vocab.json").write_text(json.dumps(_vocabulary(merges), ensure_ascii=False))
    marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": pad}
    config: dict[str, Any] = {
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        "model_max_length": LENGTH,
        "tokenizer_class": "CLIPTokenizer",
        **marks,
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(marks))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _merges() -> list[str]:
    packed = (resources.files("diffusion.originals") / MERGES).read_bytes()
    return gzip.decompress(packed).decode().splitlines()


def _vocabulary(merges: list[str]) -> dict[str, int]:
    others = (byte for byte in range(256) if byte not in PRINTED)
    letters = [chr(byte) for byte in PRINTED] + [chr(256 + n) for n, _ in enumerate(others)]
    tokens = [
        *letters,
        *(letter + END_OF_WORD for letter in letters),
        *("".join(merge.split()) for merge in merges),
        *(START, END),
    ]
    return {token: number for number, token in enumerate(tokens)}
