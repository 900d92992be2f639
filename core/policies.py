"""What a tenant may do, and how its prompts and pictures are judged. In Redis, so hot to change.

policies    hash: tenant -> policy as JSON. `default` is for tenants without one of their own
"""

import fnmatch
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Self

import redis
from pydantic import Field, StringConstraints, ValidationError, model_validator

from core import presets
from core.detection import DetectorName
from core.errors import ConceptInvalid, PolicyNotFound, PolicyUnreadable
from core.fields import Spec, Words
from core.redis_connection import answering
from core.specs import MAX_IMAGES, MAX_SIDE_PX, MAX_STEPS

KEY = "policies"
DEFAULT = "default"
FRESH_FOR_S = 1.0
"""For so long a process goes by what it has read: a changed policy holds everywhere after that."""

ModelPattern = Annotated[str, StringConstraints(pattern=r"^[a-z0-9._*?-]{1,100}$")]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,49}$")]
Category = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Score = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class DetectorRule(Spec):
    """One detector that judges every picture, and what it may not find."""

    detector: DetectorName
    thresholds: Annotated[dict[Category, Score], Field(min_length=1, max_length=200)]
    """Category -> the least score at which a picture is withheld. What the categories are is for
    the detector to say: `classifier` knows the concepts and groups of the base model."""


class PromptScreen(Spec):
    """Words that a prompt may not contain. A first line only: pictures are judged by detectors."""

    presets: tuple[Name, ...] = Field(default=(), max_length=50)
    """Lists of concepts that ship with the service: their names, synonyms and descriptions."""
    words: tuple[Words, ...] = Field(default=(), max_length=1000)

    @model_validator(mode="after")
    def _names_presets_that_are_there(self) -> Self:
        for name in self.presets:
            try:
                presets.load(name)
            except ConceptInvalid as error:
                raise ValueError(error.detail) from error
        return self


class Limits(Spec):
    """Null: no limit but the installation's."""

    images_per_request: Annotated[int, Field(strict=True, ge=1, le=MAX_IMAGES)] = MAX_IMAGES
    steps: Annotated[int, Field(strict=True, ge=1, le=MAX_STEPS)] = MAX_STEPS
    side_px: Annotated[int, Field(strict=True, ge=8, le=MAX_SIDE_PX)] = MAX_SIDE_PX
    requests_per_minute: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    """Requests for pictures, erasures or evaluations, retries among them; reading is free."""
    images_per_day: Annotated[int, Field(strict=True, ge=1, le=10**9)] | None = None
    """Days are those of UTC."""
    open_jobs: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None


class Policy(Spec):
    models: Annotated[tuple[ModelPattern, ...], Field(min_length=1, max_length=1000)] = ("*",)
    """Which of the served models may draw: ids, or patterns with `*` and `?`."""
    prompts: PromptScreen = PromptScreen()
    detectors: tuple[DetectorRule, ...] = Field(default=(), max_length=20)
    limits: Limits = Limits()
    share: Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)] = 1.0
    """Of the workers' time when all are busy, relative to that of other tenants."""
    priority: Annotated[int, Field(strict=True, ge=0, le=2)] = 1
    """0 goes before 1 goes before 2, whatever the shares."""

    @model_validator(mode="after")
    def _names_each_detector_once(self) -> Self:
        names = [rule.detector for rule in self.detectors]
        if len(names) != len(set(names)):
            raise ValueError("each detector may be listed once; merge the thresholds")
        return self

    def allows_model(self, model_id: str) -> bool:
        return any(fnmatch.fnmatchcase(model_id, pattern) for pattern in self.models)


@dataclass(frozen=True)
class PolicyInForce:
    name: str
    policy: Policy

    @property
    def id(self) -> str:
        """Name and digest: tells apart what a policy said before and after a change."""
        digest = hashlib.sha256(self.policy.model_dump_json().encode()).hexdigest()
        return f"{self.name}@{digest[:12]}"


UNWRITTEN = PolicyInForce(DEFAULT, Policy())


class PolicyStore:
    """All verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis, *, now: Callable[[], float] = time.monotonic) -> None:
        self._redis = client
        self._now = now
        self._known: dict[str, tuple[float, PolicyInForce]] = {}

    def of(self, tenant: str) -> PolicyInForce:
        """The tenant's own policy, else the default one, else one that allows what is served.

        Raises:
            PolicyUnreadable: a newer version of this program has written it.
        """
        read_at, policy = self._known.get(tenant, (0.0, UNWRITTEN))
        if read_at and self._now() - read_at < FRESH_FOR_S:
            return policy
        began = self._now()
        with answering():
            texts: Any = self._redis.hmget(KEY, [tenant, DEFAULT])
        policy = next(
            (
                PolicyInForce(name, _parse(name, text))
                for name, text in zip((tenant, DEFAULT), texts, strict=True)
                if text
            ),
            UNWRITTEN,
        )
        self._known[tenant] = (began, policy)
        return policy

    def judges(self, tenant: str) -> bool:
        """Whether a tenant's pictures are judged before they may be seen; so if nobody can say."""
        try:
            return bool(self.of(tenant).policy.detectors)
        except PolicyUnreadable:
            return True

    def all(self) -> list[PolicyInForce]:
        with answering():
            texts: Any = self._redis.hgetall(KEY)
        return [PolicyInForce(name, _parse(name, texts[name])) for name in sorted(texts)]

    def get(self, name: str) -> PolicyInForce:
        """Raises PolicyNotFound, PolicyUnreadable."""
        with answering():
            text: Any = self._redis.hget(KEY, name)
        if not text:
            raise PolicyNotFound(f"no policy {name!r}; GET /v1/policies lists them")
        return PolicyInForce(name, _parse(name, text))

    def put(self, name: str, policy: Policy) -> PolicyInForce:
        """Write or replace; holds in this process at once, elsewhere within FRESH_FOR_S."""
        with answering():
            self._redis.hset(KEY, name, policy.model_dump_json())
        self._known.clear()
        return PolicyInForce(name, policy)

    def remove(self, name: str) -> None:
        """From now on the tenant goes by the default policy.

        Raises:
            PolicyNotFound.
        """
        with answering():
            gone = self._redis.hdel(KEY, name)
        self._known.clear()
        if not gone:
            raise PolicyNotFound(f"no policy {name!r}; GET /v1/policies lists them")


def _parse(name: str, text: str) -> Policy:
    try:
        return Policy.model_validate_json(text)
    except ValidationError as error:
        raise PolicyUnreadable(
            f"policy {name!r} is not one that this version understands; nothing is served under it"
        ) from error
