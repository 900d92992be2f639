"""The panel: detectors look at a picture, and the tenant's policy says what they may not find.

Fails closed. A detector that is not there, does not load, breaks, or does not know a category
that the policy names, lets no picture through, and the picture's record says so.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog
from PIL.Image import Image

from core.errors import AppError, DetectorUnavailable, ModelUnsupported
from core.findings import Finding
from core.policies import DetectorRule, PolicyInForce, PolicyStore

log = structlog.get_logger()


class Scores(Protocol):
    """A detector: for each picture, category -> how surely it shows that, 0 to 1."""

    def __call__(self, pictures: Sequence[Image], /) -> Sequence[Mapping[str, float]]: ...


class Panel:
    def __init__(self, policies: PolicyStore, load: Callable[[str], Scores]) -> None:
        """
        Args:
            load: a detector by its name; raises AppError when it cannot.
        """
        self._policies = policies
        self._load = load
        self._loaded: dict[str, Scores] = {}
        # Pictures are finished in several threads; detectors need not be made for that.
        self._one_at_a_time = threading.Lock()

    def finding(self, picture: Image, tenant: str) -> Finding | None:
        """The worst that the tenant's policy objects to; None: the picture may be seen.

        Raises:
            DetectorUnavailable, PolicyUnreadable, StoreUnavailable.
        """
        in_force = self._policies.of(tenant)
        found: list[Finding] = []
        for rule in in_force.policy.detectors:
            scores = self._scores(picture, rule, in_force)
            found += [
                Finding(
                    stage="picture",
                    detector=rule.detector,
                    category=category,
                    score=round(scores[category], 4),
                    threshold=threshold,
                    policy=in_force.id,
                )
                for category, threshold in rule.thresholds.items()
                if scores[category] >= threshold
            ]
        return max(found, key=lambda finding: finding.score or 0, default=None)

    def _scores(
        self, picture: Image, rule: DetectorRule, in_force: PolicyInForce
    ) -> Mapping[str, float]:
        """Raises DetectorUnavailable."""
        try:
            with self._one_at_a_time:
                if rule.detector not in self._loaded:
                    self._loaded[rule.detector] = self._load(rule.detector)
                (scores,) = self._loaded[rule.detector]([picture])
        except Exception as error:
            log.warning("detector failed", detector=rule.detector, error=type(error).__name__)
            why = error.detail if isinstance(error, AppError) else "it broke; the log says where"
            raise _unavailable(rule.detector, why, in_force) from error
        if missing := [name for name in rule.thresholds if name not in scores]:
            why = f"it knows no category {missing[0]!r}"
            raise _unavailable(rule.detector, why, in_force)
        if wrong := [name for name in rule.thresholds if not 0 <= scores[name] <= 1]:
            why = f"its score for {wrong[0]!r} is no number from 0 to 1"
            raise _unavailable(rule.detector, why, in_force)
        return scores


def _unavailable(detector: str, why: str, in_force: PolicyInForce) -> DetectorUnavailable:
    finding = Finding(stage="picture", detector=detector, policy=in_force.id)
    return DetectorUnavailable(
        f"withheld, since the detector {detector!r} could not judge it: {why}", finding
    )


def load_detector(name: str) -> Scores:
    """Raises ModelUnsupported."""
    raise ModelUnsupported(f"this installation has no detector {name!r}")
