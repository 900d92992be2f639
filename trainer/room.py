"""Is there memory and disk enough for an erasure? Asked before it begins.

Both are estimated from the sizes of the base's files and the widths in its configs, from above.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch

from core.errors import NotEnoughRoom
from core.importing import read_family
from core.phrases import mentions
from core.specs import Concept, ErasureSpec
from diffusion.attention import GROUPS
from diffusion.families import text_parts
from diffusion.model_concepts import FILENAME as CONCEPTS
from diffusion.model_concepts import ModelConcepts
from diffusion.weights import find_weights, open_weights
from trainer.preservation import caption_groups
from trainer.trce.lesson_size import lesson_bytes, prompts
from trainer.trce.passes import TRAINED, passes_bytes

MIB = 1 << 20
SLACK_BYTES = 64 * MIB
FLOAT64_BYTES, FLOAT32_BYTES, FLOAT16_BYTES = 8, 4, 2
MATRICES_OF_A_CONCEPT = 2
MATRICES_OF_SOLVING = 8
"""d x d each (and p x p of pooled embeddings): K, A, B, a factor, eigenvalues' workspace, T and
copies."""
TRAINED_COPIES = 3
"""Gradients and the two moments of the optimiser, of the parameters that are trained."""
ALLOCATED = 1.25
"""What an allocator takes for the tensors of a pass, in which there are gaps."""
TEXT_COPIES = 4
"""While a lesson is made: unsafe prompts and safe ones, and both as stage 1 maps them."""
PROMPT_TOKENS = 77
"""Of CLIP, where the config of a text encoder does not say."""
CHECKPOINT_COPIES = 3 * 2
"""Weights and both moments; the new file lies beside the old one for a moment."""
LESS_MEMORY = (
    "to need less in stage 2, make `batch` and `anchors` smaller, `accumulation` larger, or set "
    "`autocast` or `gradient_checkpointing`"
)
CGROUP = Path("/sys/fs/cgroup")
GIVEN_BACK = ("inactive_file", "active_file", "slab_reclaimable")
"""What the kernel drops when memory runs short: files that were read or written, mostly."""


@dataclass(frozen=True)
class Room:
    memory_bytes: int
    disk_bytes: int
    """Where the model is written."""
    work_bytes: int = 0
    """Where a run keeps what it is resumed from."""


def check_room(
    base: Path,
    out: Path,
    spec: ErasureSpec,
    concepts: Sequence[Concept],
    *,
    device: torch.device | str,
    work: Path | None = None,
    processes: int = 1,
) -> None:
    """Raises NotEnoughRoom, UntrustedModel.

    Args:
        spec: with the neighbours that are taken over from merged models among the protected.
        work: where a run keeps what it is resumed from; None: nowhere.
        processes: that stage 2 runs in; on CPUs they share one memory, and each keeps what it
            draws.
    """
    need = needed(base, spec, concepts, processes=processes)
    if spec.steering is not None and torch.device(device).type == "cpu":
        need = replace(need, memory_bytes=need.memory_bytes * processes)
    asked = [("memory", need.memory_bytes, free_memory_bytes(device))]
    for place, wanted in _by_disk([(out, need.disk_bytes), (work, need.work_bytes * processes)]):
        asked.append((f"disk at {place}", wanted, shutil.disk_usage(place).free))
    for what, wanted, free in asked:
        if free is not None and wanted > free:
            advice = f"; {LESS_MEMORY}" if spec.steering and what == "memory" else ""
            raise NotEnoughRoom(
                f"this erasure needs about {wanted // MIB} MiB of {what}, and {free // MIB} MiB "
                f"are free{advice}"
            )


def check_room_to_unpack(file: Path, out: Path) -> None:
    """A model in one file fits beside `out` as a folder.

    Raises:
        NotEnoughRoom
    """
    wanted = file.stat().st_size + SLACK_BYTES
    for place, size in _by_disk([(out.parent, wanted)]):
        free = shutil.disk_usage(place).free
        if size > free:
            raise NotEnoughRoom(
                f"{file.name} needs about {size // MIB} MiB of disk at {place} to be unpacked, "
                f"and {free // MIB} MiB are free"
            )


def _by_disk(wanted: Sequence[tuple[Path | None, int]]) -> list[tuple[Path, int]]:
    """A folder of each disk that something is to be written to, and how much that is."""
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in wanted:
        if folder is not None and size:
            place = next(one for one in (folder, *folder.resolve().parents) if one.exists())
            first, before = disks.setdefault(place.stat().st_dev, (place, 0))
            disks[place.stat().st_dev] = first, before + size
    return list(disks.values())


def needed(
    base: Path, spec: ErasureSpec, concepts: Sequence[Concept], *, processes: int = 1
) -> Room:
    """What stage 1, and each process of stage 2 if it is asked for, take at the most.

    Raises:
        UntrustedModel: the weights of the base cannot be read.
    """
    family, _ = read_family(base)
    unet = _parameters(base / "unet")
    text = sum(_parameters(base / part) for part in text_parts(family))
    matrix = (_width(base) ** 2 + _pooled_width(base, family) ** 2) * FLOAT64_BYTES
    found = spec.textual.neighbours if (base / CONCEPTS).exists() else 0
    groups = 3 + len(spec.textual.protect) + found
    sums = (MATRICES_OF_A_CONCEPT * len(concepts) + groups) * matrix
    embeddings = _context(base, family) * FLOAT32_BYTES
    withheld = _withheld(base, spec, concepts) * embeddings
    # What is written is put together in memory first.
    memory = text * FLOAT32_BYTES + sums + MATRICES_OF_SOLVING * matrix + 2 * withheld
    # Where no concept is left, the base's own files are copied, in whatever precision they are.
    written = unet * FLOAT16_BYTES if concepts else _bytes_below(base / "unet")
    disk = written + sums + matrix + withheld
    if spec.steering is None:
        return Room(memory + SLACK_BYTES, disk + SLACK_BYTES)
    config = _config(base / "unet")
    latent = config.get("in_channels", 4) * config["sample_size"] ** 2
    lesson = lesson_bytes(spec.steering, latent=latent, text=_context(base, family))
    texts = TEXT_COPIES * prompts(spec.steering) * embeddings
    trained = _parameters(base / "unet", _is_trained)
    passes = passes_bytes(config, spec.steering, processes)
    memory += (unet + trained * TRAINED_COPIES) * FLOAT32_BYTES + int(ALLOCATED * passes)
    memory += 2 * lesson + texts
    # Points are kept while they are drawn, and the lesson when they all are.
    work = 2 * lesson + trained * FLOAT32_BYTES * CHECKPOINT_COPIES
    disk += unet * FLOAT32_BYTES
    return Room(memory + SLACK_BYTES, disk + SLACK_BYTES, work)


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
        return None if limit == "max" else int(limit) - max(0, int(used) - _given_back())
    except (OSError, ValueError):
        return None


def _given_back() -> int:
    """What counts as used and hinders nobody; nothing where the kernel does not say."""
    try:
        lines = (CGROUP / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    told = dict(line.split() for line in lines)
    return sum(int(told.get(name, 0)) for name in GIVEN_BACK)


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _parameters(folder: Path, counts: Callable[[str], bool] = lambda _: True) -> int:
    with open_weights(*find_weights(folder).paths) as weights:
        return sum(prod(weights.shape(name)) for name in weights.names if counts(name))


def _is_trained(parameter: str) -> bool:
    return any(GROUPS[group](parameter) for group in TRAINED)


def _withheld(base: Path, spec: ErasureSpec, concepts: Sequence[Concept]) -> int:
    """How many captions speak of what is erased: their embeddings are kept."""
    words = [word for concept in concepts for word in concept.words]
    groups = caption_groups(
        known=ModelConcepts.of(base), protect=(), seed=spec.seed, own=spec.textual.captions
    )
    return sum(mentions(one, words) is not None for group in groups for one in group.captions)


def _context(base: Path, family: str) -> int:
    """The numbers of one prompt, pooled ones included."""
    configs = [_config(base / part) for part in text_parts(family)]
    length = max(config.get("max_position_embeddings", PROMPT_TOKENS) for config in configs)
    return int(length * _width(base) + _pooled_width(base, family))


def _pooled_width(base: Path, family: str) -> int:
    """Pooled embeddings are those of SDXL's second encoder; 0 for models without."""
    return sum(int(_config(base / part)["projection_dim"]) for part in text_parts(family)[1:])


def _width(base: Path) -> int:
    return int(_config(base / "unet")["cross_attention_dim"])


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return config
