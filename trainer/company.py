"""Stage 2 on several devices of this host: the further processes, and the work they are given."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from pydantic import BaseModel

from core.children import kill_session, start_child
from core.errors import Invalid
from core.manifests import Manifest
from core.specs import Concept, ErasureSpec, SteeringOptions
from diffusion.erasure import FILENAME as ERASURE
from trainer.steered import StageOne
from trainer.trce.ranks import ALONE, Ranks, joined

TASK = "task.json"
MEETING = "meeting"
READY = b"ready\n"
FOLDER = "trce-ranks-"


class Task(BaseModel):
    """What a rank is told; stage 1 lies beside it."""

    base: Path
    manifest: Manifest | None
    spec: ErasureSpec
    neighbours: dict[str, tuple[str, ...]]
    """What was found; with it among what is protected, the spec is longer than one may be."""
    concepts: tuple[Concept, ...]
    base_digest: str
    native_px: int
    work: Path | None
    device: str
    """`cpu` or `cuda`; see `device_of`."""
    threads: int
    ranks: int


def check_processes(count: int, device: torch.device | str, options: SteeringOptions) -> None:
    """Can stage 2 run in so many processes?

    Raises:
        Invalid: there are fewer GPUs or cores, or less to do in a step.
    """
    if count < 1:
        raise Invalid(f"stage 2 needs at least one process, not {count}")
    if count == 1:
        return
    device = torch.device(device)
    if device.index is not None:
        raise Invalid(f"{device} is one device; name {device.type} to train in {count} processes")
    match device.type:
        case "cuda":
            there, what = torch.cuda.device_count(), "GPUs"
        case "cpu":
            there, what = os.cpu_count() or 1, "cores"
        case _:
            raise Invalid(f"several processes train on cuda or cpu, not on {device.type}")
    if count > there:
        raise Invalid(
            f"stage 2 was to run in {count} processes, and this host has {there} {what}; ask for "
            f"{there} at most"
        )
    rows = max(options.batch, options.anchors)
    if options.accumulation * count > rows:
        raise Invalid(
            f"a step of {rows} points cannot be shared by {count} processes in "
            f"{options.accumulation} parts each; use fewer, or a larger batch"
        )


def device_of(rank: int, device: str) -> torch.device:
    return torch.device("cuda", rank) if device == "cuda" else torch.device(device)


@contextmanager
def company(
    count: int,
    base: Path,
    manifest: Manifest | None,
    begun: StageOne,
    spec: ErasureSpec,
    neighbours: dict[str, tuple[str, ...]],
    *,
    device: torch.device | str,
    work: Path | None,
) -> Iterator[Ranks]:
    """With so many processes less one at work beside this one, which is rank 0.

    Args:
        neighbours: that were found, and are protected beside what the spec names.
        work: a folder of this run alone; what passes between the processes lies in it, so that
            nothing is left elsewhere by one that was killed.

    Raises:
        RuntimeError: one of them has ended before its work was done; what it said is on stderr.
    """
    if count == 1:
        yield ALONE
        return
    device = torch.device(device)
    folder = _meeting_place(work)
    task = Task(
        base=base.resolve(),
        manifest=manifest,
        spec=spec,
        neighbours=neighbours,
        concepts=tuple(begun.concepts),
        base_digest=begun.base_digest,
        native_px=begun.native_px,
        work=work and work.resolve(),
        device=device.type,
        threads=torch.get_num_threads(),
        ranks=count,
    )
    (folder / TASK).write_text(task.model_dump_json(exclude_unset=True))
    begun.erasure.save(folder / ERASURE, {})
    others = [
        start_child(
            [sys.executable, "-m", "trainer.rank", folder, str(rank)],
            stdout=subprocess.PIPE,
            death_signal=signal.SIGKILL,
        )
        for rank in range(1, count)
    ]
    try:
        for rank, other in enumerate(others, start=1):
            assert other.stdout is not None
            if READY not in other.stdout:
                raise RuntimeError(f"process {rank} of {count} ended before stage 2 began")
        with joined(Ranks(0, count), device_of(0, device.type), folder / MEETING):
            yield Ranks(0, count)
        for rank, other in enumerate(others, start=1):
            if code := other.wait():
                raise RuntimeError(f"process {rank} of {count} ended with {code}")
    finally:
        for other in others:
            kill_session(other)
            other.communicate()
        shutil.rmtree(folder)


def _meeting_place(work: Path | None) -> Path:
    """A new folder, in place of those that killed runs have left in `work`."""
    if work is None:
        return Path(tempfile.mkdtemp(prefix=FOLDER))
    work.mkdir(parents=True, exist_ok=True)
    for left in work.glob(f"{FOLDER}*"):
        shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=FOLDER, dir=work)).resolve()
