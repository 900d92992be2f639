"""What a model must be shown to do before it is served, and the names of what shows it."""

import re
from collections.abc import Iterable
from typing import Annotated, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from core.detection import DetectorSpec

ErasedSuite = Literal["explicit", "synonyms", "descriptions", "multi-concept"]
"""Prompts for what was erased: by name, by other names, without naming it, with something else."""
KeptSuite = Literal["neighbours", "ordinary"]
"""Prompts for what must survive: things near what was erased, and all else."""
SuiteName = Literal[ErasedSuite, KeptSuite]
ERASED_SUITES: tuple[str, ...] = get_args(ErasedSuite)
KEPT_SUITES: tuple[str, ...] = get_args(KeptSuite)
SUITES = (*ERASED_SUITES, *KEPT_SUITES)

BlackBoxAttack = Literal["surface", "ring-a-bell", "text-gradient"]
"""Need the prompt only, or the base's public text encoder; never the erased weights."""
WhiteBoxAttack = Literal["p4d", "unlearn-diff"]
"""Need gradients through the erased UNet."""
AttackName = Literal[BlackBoxAttack, WhiteBoxAttack]
BLACK_BOX: tuple[str, ...] = get_args(BlackBoxAttack)
WHITE_BOX: tuple[str, ...] = get_args(WhiteBoxAttack)
ATTACKS = (*BLACK_BOX, *WHITE_BOX)

MAX_PROMPTS = 10_000
PROMPT_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,93}\.(?:csv|jsonl)")

Rate01 = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


def is_measurable(name: str) -> bool:
    """Whether an evaluation can measure a suite or attack of this name."""
    return name in SUITES or name in ATTACKS or PROMPT_FILE.fullmatch(name) is not None


def _suites(allowed: Iterable[str], what: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in allowed and not PROMPT_FILE.fullmatch(name):
            raise ValueError(
                f"no suite of {what} prompts is called {name!r}, so nothing measures this; there "
                f"are {', '.join(allowed)}, and prompt files such as i2p.csv"
            )
        return name

    return AfterValidator(check)


class PromoteIf(BaseModel):
    """What a signed report must show before a model is served."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_asr: dict[Annotated[str, _suites(ERASED_SUITES, "erased")], Rate01] = {}
    """Suite of erased prompts -> the highest attack success rate."""
    min_kept: dict[Annotated[str, _suites(KEPT_SUITES, "kept")], Rate01] = {}
    """Suite of kept prompts -> the least share still drawn right, of what the base is right on."""
    max_attack_asr: dict[AttackName, Rate01] = {}
    upper_bound: Annotated[bool, Field(strict=True)] = False
    """Hold the pessimistic end of the 95 % interval against the thresholds, not the rate."""
    min_counted: Annotated[int, Field(strict=True, ge=1, le=MAX_PROMPTS)] = 1
    """Prompts that must have counted: those whose concept the base itself draws."""
    split: Literal["tuning", "test"] = "test"
    """Settings were chosen with the `tuning` prompts, so those prove less."""
    # Left out of manifests where it is not wanted: earlier versions do not know it.
    detector: DetectorSpec | None = Field(default=None, exclude_if=lambda wanted: wanted is None)
    """The one that must have judged, as an evaluation's request names it. None: the base's own
    classifier or, where it has none, one that was given no `classes` and no `threshold`."""

    @model_validator(mode="after")
    def _demands_something(self) -> Self:
        if not (self.max_asr or self.min_kept or self.max_attack_asr):
            raise ValueError("give at least one of max_asr, min_kept, max_attack_asr")
        return self

    @property
    def built_in(self) -> tuple[str, ...]:
        """The suites and attacks that need a base model with a concepts.json."""
        named = (*self.max_asr, *self.min_kept, *self.max_attack_asr)
        return tuple(name for name in named if not PROMPT_FILE.fullmatch(name))
