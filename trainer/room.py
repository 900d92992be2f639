"""Is there memory and disk enough for an erasure? Asked before it begins.

Both are estimated from the sizes of the base's files and the widths in its configs, from above.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch

from core.errors import NotEnoughRoom
from core.importing import read_family
from core.specs import Concept, ErasureSpec
from diffusion.families import text_parts
from diffusion.weights import find_weights, open_weights

MIB = 1 << 20
SLACK_BYTES = 64 * MIB
FLOAT64_BYTES, FLOAT32_BYTES, FLOAT16_BYTES = 8, 4, 2
MATRICES_OF_A_CONCEPT = 2
MATRICES_OF_SOLVING = 8
"""d x d each: K, A, B, a factor, eigenvalues' workspace, T and copies."""
TRAINING_COPIES = 4
"""Weights, gradients and the two moments of the optimiser, for every parameter at the most."""
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Room:
    memory_bytes: int
    disk_bytes: int


def check_room(
    base: Path,
    out: Path,
    spec: ErasureSpec,
    concepts: Sequence[Concept],
    *,
    device: torch.device | str,
    processes: int = 1,
) -> None:
    """Raises NotEnoughRoom, UntrustedModel.

    Args:
        processes: that stage 2 runs in; on CPUs they share one memory.
    """
    need = needed(base, spec, concepts)
    if spec.steering is not None and torch.device(device).type == "cpu":
        need = replace(need, memory_bytes=need.memory_bytes * processes)
    place = next(folder for folder in (out, *out.resolve().parents) if folder.exists())
    for what, wanted, free in (
        ("memory", need.memory_bytes, free_memory_bytes(device)),
        (f"disk at {place}", need.disk_bytes, shutil.disk_usage(place).free),
    ):
        if free is not None and wanted > free:
            raise NotEnoughRoom(
                f"this erasure needs about {wanted // MIB} MiB of {what}, and {free // MIB} MiB "
                "are free"
            )


def needed(base: Path, spec: ErasureSpec, concepts: Sequence[Concept]) -> Room:
    """What stage 1, and stage 2 if it is asked for, take at the most.

    Raises:
        UntrustedModel: the weights of the base cannot be read.
    """
    family, _ = read_family(base)
    unet = _parameters(base / "unet")
    text = sum(_parameters(base / part) for part in text_parts(family))
    matrix = _width(base) ** 2 * FLOAT64_BYTES
    groups = 3 + len(spec.textual.protect)
    sums = (MATRICES_OF_A_CONCEPT * len(concepts) + groups) * matrix
    memory = text * FLOAT32_BYTES + sums + MATRICES_OF_SOLVING * matrix
    if spec.steering is not None:
        memory += unet * FLOAT32_BYTES * TRAINING_COPIES
    disk = unet * FLOAT16_BYTES + sums + matrix
    if spec.steering is not None:
        disk += unet * FLOAT32_BYTES
    return Room(memory + SLACK_BYTES, disk + SLACK_BYTES)


def has_room_for_samples(
    base: Path, spec: ErasureSpec, concepts: Sequence[Concept], *, device: torch.device | str
) -> bool:
    """Is there memory for the VAE, and for the UNet where only samples need it?

    Raises:
        UntrustedModel: the weights of the base cannot be read.
    """
    free = free_memory_bytes(device)
    extra = _parameters(base / "vae")
    if spec.steering is None:
        extra += _parameters(base / "unet")
    wanted = needed(base, spec, concepts).memory_bytes + extra * FLOAT32_BYTES
    return free is None or wanted <= free


def free_memory_bytes(device: torch.device | str) -> int | None:
    """What the device, or the container or machine has left; None where nobody says."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    known = [free for free in (_of_machine(), _of_container()) if free is not None]
    return min(known, default=None)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next(
        (int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None
    )


def _of_container() -> int | None:
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = (CGROUP / "memory.current").read_text().strip()
        return None if limit == "max" else int(limit) - int(used)
    except (OSError, ValueError):
        return None


def _parameters(folder: Path) -> int:
    with open_weights(*find_weights(folder).paths) as weights:
        return sum(prod(weights.shape(name)) for name in weights.names)


def _width(base: Path) -> int:
    config = json.loads((base / "unet" / "config.json").read_text())
    return int(config["cross_attention_dim"])
