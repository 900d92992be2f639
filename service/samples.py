"""What of an erasure's samples may be seen: none where pictures are judged first."""

from dataclasses import dataclass

from core.jobs import Job
from core.samples import Sample, Samples
from service.wiring import Parts


@dataclass(frozen=True)
class Compared:
    """One prompt from one seed: what the base drew, and what is drawn by now."""

    before: Sample
    now: Sample | None


def seen_samples(job: Job, parts: Parts) -> list[Samples]:
    """The first round and the latest, if there are any.

    Raises:
        StoreUnavailable.
    """
    # The policy may have come after the samples.
    return [] if parts.policies.judges(job.tenant) else parts.jobs.news.samples(job.id)


def compared(rounds: list[Samples]) -> list[Compared]:
    if not rounds:
        return []
    first, *later = rounds
    if not later:
        return [Compared(before, None) for before in first.pictures]
    both = zip(first.pictures, later[-1].pictures, strict=True)
    return [Compared(before, now) for before, now in both]
