"""Loading a model of SD 1.5's size, every file held against its manifest, against from_pretrained.

Both read the same folder in half precision, from the page cache, in turns, until every page of
every weight has been touched: from_pretrained only maps the files, and would be paid for later.
"""

import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from benchmarks.serving import true_size
from core.importing import read_family
from core.making import describe
from core.version import CODE_VERSION
from diffusion.loading import load_base

ROUNDS = 5
PAGE_WEIGHTS = 2048
"""Of two bytes each, in a page of memory."""


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="trce-bench-") as name:
        folder = Path(name)
        true_size.write_pipeline(folder)
        family, drawing = read_family(folder)
        manifest = describe(
            folder, model_id="big", family=family, drawing=drawing, code_version=CODE_VERSION
        )
        ours, theirs = [], []
        for turn in range(ROUNDS + 1):
            verified = _seconds(lambda: load_base(folder, manifest, dtype=torch.float16))
            plain = _seconds(
                lambda: StableDiffusionPipeline.from_pretrained(
                    folder, dtype=torch.float16, local_files_only=True
                )
            )
            if turn:
                ours.append(verified)
                theirs.append(plain)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return {
        "load_ratio": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        "detail": {
            "bytes": size,
            "verified_s": statistics.median(ours),
            "from_pretrained_s": statistics.median(theirs),
        },
    }


def _seconds(load: Callable[[], Any]) -> float:
    """Until everything is in memory, and without what was there before."""
    gc.collect()
    began = time.perf_counter()
    loaded = load()
    for part in (loaded.text_encoder, loaded.unet, loaded.vae):
        for weight in part.parameters():
            weight.detach().flatten()[::PAGE_WEIGHTS].sum()
    return time.perf_counter() - began
