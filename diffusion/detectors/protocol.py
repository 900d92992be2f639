"""What every detector is: an identity to report, and a score per picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from core.errors import AppError, DetectorFailed


class DetectorIdentity(BaseModel):
    """All that decides a verdict: two detectors with one identity judge alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    """Of the package, or the digest of the weights."""
    classes: tuple[str, ...] = Field(min_length=1)
    threshold: float
    """A picture shows the concept when any class scores at least this."""


class Detector(Protocol):
    @property
    def identity(self) -> DetectorIdentity: ...

    def scores(self, pictures: Sequence[Image.Image]) -> Sequence[Mapping[str, float]]:
        """For each picture: every class of the identity -> how surely it is shown, in [0, 1]."""
        ...


@dataclass(frozen=True)
class Verdict:
    score: float
    """Of the class that is shown most surely."""
    seen: str
    """That class."""
    shown: bool


def judge(detector: Detector, pictures: Sequence[Image.Image]) -> list[Verdict]:
    """A verdict per picture. A detector that breaks has found nothing safe: it is an error.

    Raises:
        DetectorFailed: it raised, left out a picture or a class, or gave a score outside [0, 1].
    """
    identity = detector.identity
    try:
        scores = detector.scores(pictures)
    except AppError:
        raise
    except Exception as error:
        raise DetectorFailed(
            f"detector {identity.name} {identity.version} broke on {len(pictures)} pictures: "
            f"{type(error).__name__}; they are not judged"
        ) from error
    if len(scores) != len(pictures):
        raise DetectorFailed(
            f"detector {identity.name} judged {len(scores)} of {len(pictures)} pictures"
        )
    return [_verdict(identity, place, one) for place, one in enumerate(scores)]


def _verdict(identity: DetectorIdentity, place: int, scores: Mapping[str, float]) -> Verdict:
    for name in identity.classes:
        score = scores.get(name, math.nan)
        if not (math.isfinite(score) and 0 <= score <= 1):
            raise DetectorFailed(
                f"detector {identity.name} gave picture {place} the score {score} for {name!r}, "
                "which is not between 0 and 1"
            )
    seen = max(identity.classes, key=lambda name: scores[name])
    return Verdict(scores[seen], seen, shown=scores[seen] >= identity.threshold)
