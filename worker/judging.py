"""The panel: detectors look at a picture, and the tenant's policy says what they may not find.

Fails closed. A detector that is not there, does not load, breaks, or does not know a category
that the policy names, lets no picture through, and the picture's record says so.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping

import structlog
from PIL.Image import Image

from core.detection import DetectorSpec
from core.errors import AppError, DetectorUnavailable
from core.findings import Finding
from core.manifests import Manifest
from core.policies import DetectorRule, PolicyInForce, PolicyStore
from diffusion.detectors.protocol import Detector

log = structlog.get_logger()

Load = Callable[[DetectorSpec, Manifest], Detector]
"""A detector, for pictures of a base model. Raises AppError."""

MAX_LOADED = 8


class Panel:
    def __init__(self, policies: PolicyStore, load: Load) -> None:
        self._policies = policies
        self._load = load
        self._loaded: OrderedDict[tuple[DetectorSpec, str], Detector] = OrderedDict()
        # Pictures are finished in several threads; detectors need not be made for that.
        self._one_at_a_time = threading.Lock()

    def judges(self, tenant: str) -> bool:
        """Whether pictures of a tenant are judged before they may be seen.

        Raises:
            StoreUnavailable.
        """
        return self._policies.judges(tenant)

    def finding(self, picture: Image, tenant: str, base: Manifest) -> Finding | None:
        """The worst that the tenant's policy objects to; None: the picture may be seen.

        Args:
            base: the base model that drew it, or whose erased model did.

        Raises:
            DetectorUnavailable, PolicyUnreadable, StoreUnavailable.
        """
        in_force = self._policies.of(tenant)
        found: list[Finding] = []
        for rule in in_force.policy.detectors:
            scores = self._scores(picture, rule, in_force, base)
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
        self, picture: Image, rule: DetectorRule, in_force: PolicyInForce, base: Manifest
    ) -> Mapping[str, float]:
        """Raises DetectorUnavailable."""
        # The threshold decides nothing here, but some detectors know one that they cannot keep.
        spec = DetectorSpec(
            name=rule.detector,
            classes=tuple(sorted(rule.thresholds)),
            threshold=min(rule.thresholds.values()),
        )
        try:
            with self._one_at_a_time:
                (scores,) = self._detector(spec, base).scores([picture])
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

    def _detector(self, spec: DetectorSpec, base: Manifest) -> Detector:
        """Loaded once; one that does not load is tried again with the next picture."""
        key = spec, base.content_digest
        if key not in self._loaded:
            self._loaded[key] = self._load(spec, base)
            while len(self._loaded) > MAX_LOADED:
                self._loaded.popitem(last=False)
        self._loaded.move_to_end(key)
        return self._loaded[key]


def _unavailable(detector: str, why: str, in_force: PolicyInForce) -> DetectorUnavailable:
    finding = Finding(stage="picture", detector=detector, policy=in_force.id)
    return DetectorUnavailable(
        f"withheld, since the detector {detector!r} could not judge it: {why}", finding
    )
