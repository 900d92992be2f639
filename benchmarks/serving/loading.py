"""Loading a model of SD 1.5's size, every file held against its manifest, against from_pretrained.

Both read the same folder in half precision, in turns, until every page of every weight has been
touched: from_pretrained only maps the files, and would be paid for later. The figure is that of
files that lie on the disk, as after a start of the machine. Files that are in memory already are
measured, too: there from_pretrained has nothing to do, and a check has to read every byte. What
they are read into was used just before (`benchmarks/memory.py`).

A process of its own measures, in memory of huge pages and with one thread of torch, as a worker's
does: `python -m benchmarks.serving.loading` prints its figures as JSON.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from benchmarks.memory import leave_memory, use_memory, weights_bytes
from benchmarks.serving import true_size
from benchmarks.serving.as_a_worker import measured
from core.importing import read_family
from core.making import describe
from core.version import CODE_VERSION
from diffusion.loading import load_base

ROUNDS = 7
PAGE_WEIGHTS = 2048
"""Of two bytes each, in a page of memory."""


def measure() -> dict[str, Any]:
    return measured("benchmarks.serving.loading")


def figures() -> dict[str, Any]:
    seconds: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="trce-bench-") as name:
        folder = Path(name)
        true_size.write_pipeline(folder)
        family, drawing = read_family(folder)
        manifest = describe(
            folder, model_id="big", family=family, drawing=drawing, code_version=CODE_VERSION
        )
        contenders = {
            "verified": lambda: load_base(folder, manifest, dtype=torch.float16),
            "from_pretrained": lambda: StableDiffusionPipeline.from_pretrained(
                folder, dtype=torch.float16, local_files_only=True
            ),
        }
        for turn in range(ROUNDS + 1):
            for where in ("disk", "memory"):
                for contender, load in contenders.items():
                    on_disk = folder if where == "disk" else None
                    taken = _seconds(load, weights_bytes(folder), on_disk)
                    if turn:
                        seconds.setdefault((contender, where), []).append(taken)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def ratio(where: str) -> float:
        ours, theirs = seconds["verified", where], seconds["from_pretrained", where]
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))

    return {
        "load_ratio": ratio("disk"),
        "detail": {
            "bytes": size,
            "ratio_from_memory": ratio("memory"),
            **{f"{a}_{b}_s": statistics.median(turns) for (a, b), turns in seconds.items()},
        },
    }


def _seconds(load: Callable[[], Any], size_bytes: int, on_disk: Path | None) -> float:
    """Until everything is in memory, and without what was there before.

    Args:
        size_bytes: of the weights.
        on_disk: a folder whose files are not to be in the page cache when it begins.
    """
    use_memory(size_bytes)
    if on_disk is not None:
        leave_memory(on_disk)
    began = time.perf_counter()
    loaded = load()
    for part in (loaded.text_encoder, loaded.unet, loaded.vae):
        for weight in part.parameters():
            weight.detach().flatten()[::PAGE_WEIGHTS].sum()
    return time.perf_counter() - began


if __name__ == "__main__":
    print(json.dumps(figures()))
