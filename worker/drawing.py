"""A claimed generation while it is being drawn."""

import contextlib
import time
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from core.errors import AppError
from core.jobs import GenerationResult, ImageRecord, Lease
from core.specs import GenerationSpec
from worker.variant import Variant

STORED_WITHIN_S = 1.0
"""How long whoever is stopped waits for its pictures: everybody else waits meanwhile. Nobody waits
for those whose model is still being checked."""


class RowKey(NamedTuple):
    """A picture's place in the batch: the attempt's token, and its number in the job."""

    token: str
    number: int


@dataclass
class Drawing:
    lease: Lease
    spec: GenerationSpec
    variant: Variant
    images: dict[int, Future[ImageRecord]] = field(default_factory=dict)
    stored_by: Executor | None = None
    """The threads that store its pictures: all of them the same ones, one after the other."""
    let_go: bool = False
    """Nobody wants what is not stored yet."""
    ended: Future[None] | None = None
    """Once it is drawn: done when its pictures are stored and its result is recorded; or when one
    could not be stored."""
    reported_at: float = 0.0
    total: int = 1
    """Steps in all; some schedulers take more than were asked for."""
    previewed: int = 0
    """How many of its previews have been due."""
    followed: bool = False
    """A client is told of every step."""
    judged: bool = False
    """Nobody may see its pictures before they were judged: it has no previews."""
    began_s: float = field(default_factory=time.time)

    @property
    def keys(self) -> list[RowKey]:
        return [RowKey(self.lease.token, number) for number in range(self.spec.n)]

    @property
    def drawn(self) -> bool:
        """Every picture has been decoded; some may not be stored yet."""
        return len(self.images) == self.spec.n

    @property
    def undrawn(self) -> list[RowKey]:
        """The pictures that are still in the batch."""
        return [key for key in self.keys if key.number not in self.images]

    def steps(self) -> tuple[int, int]:
        """Done, and in all, of the picture that is furthest behind."""
        if self.drawn:
            return self.total, self.total
        denoiser = self.variant.denoiser
        return min(denoiser.steps_done(key) for key in self.undrawn), self.total


def finished_by_now(drawing: Drawing, *, late: str | None = None) -> tuple[ImageRecord, ...]:
    """Of a job that is stopped: the pictures that are stored, and that the others are not.

    Args:
        late: why, where it is not that somebody cancelled it.
    """
    records = []
    within_s = STORED_WITHIN_S if drawing.variant.late_check.passed else 0.0
    stored, _ = wait(drawing.images.values(), timeout=within_s)
    for number in range(drawing.spec.n):
        seed = (drawing.spec.seed or 0) + number
        record = ImageRecord(
            seed=seed, finish_reason="cancelled" if late is None else "error", reason=late
        )
        if drawing.images.get(number) in stored:
            with contextlib.suppress(OSError, AppError):
                record = drawing.images[number].result()
        records.append(record)
    return tuple(records)


def result_of(drawing: Drawing, images: tuple[ImageRecord, ...]) -> dict[str, Any]:
    result = GenerationResult(model=drawing.variant.model_id, images=images)
    return result.model_dump(mode="json")
