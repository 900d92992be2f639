"""What every detector is: an identity to report, and a score per picture."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image
from pydantic import BaseModel, ConfigDict

from core.errors import AppError, DetectorFailed


class DetectorIdentity(BaseModel):
    """All that decides a verdict: two detectors with one identity judge alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    """Of the package, or the digest of the weights."""
    classes: tuple[str, ...]
    """Any of these counts as shown."""
    threshold: float
    """A picture shows one when its score is at least this."""


class Detector(Protocol):
    @property
    def identity(self) -> DetectorIdentity: ...

    def scores(self, pictures: Sequence[Image.Image]) -> list[float]:
        """How surely each picture shows any of the classes, in [0, 1]."""
        ...


@dataclass(frozen=True)
class Verdict:
    score: float
    shown: bool


def judge(detector: Detector, pictures: Sequence[Image.Image]) -> list[Verdict]:
    """A verdict per picture. A detector that breaks has found nothing safe: it is an error.

    Raises:
        DetectorFailed: it raised, left pictures out, or gave scores outside [0, 1].
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
    for place, score in enumerate(scores):
        if not (math.isfinite(score) and 0 <= score <= 1):
            raise DetectorFailed(
                f"detector {identity.name} gave picture {place} the score {score}, which is not "
                "between 0 and 1"
            )
    return [Verdict(score, shown=score >= identity.threshold) for score in scores]
