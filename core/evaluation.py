"""What an evaluation measures: suites of prompts, attacks, and by which detector."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from core.detection import DetectorSpec
from core.fields import Spec, Words
from core.specs import MAX_GUIDANCE_SCALE, MAX_SEED, MAX_STEPS, ModelId
from core.thresholds import ATTACKS, MAX_PROMPTS, PROMPT_FILE, SUITES, AttackName, SuiteName

MAX_ATTACK_BUDGET = 10_000


def _file_name(name: str) -> str:
    if PROMPT_FILE.fullmatch(name) is None:
        raise ValueError(
            f"{name!r} names no prompt set; those are .csv and .jsonl files of the folder of "
            "prompt sets, named without a folder"
        )
    return name


PromptFile = Annotated[
    str,
    AfterValidator(_file_name),
    Field(json_schema_extra={"pattern": f"^{PROMPT_FILE.pattern}$"}),
]
"""The name of a CSV or JSON Lines file in the folder of prompt sets, see docs/evaluation.md."""


class AttackSpec(Spec):
    name: AttackName
    budget: Annotated[int, Field(strict=True, ge=1, le=MAX_ATTACK_BUDGET)] = 20
    """Variants per prompt (surface), generations (ring-a-bell) or gradient steps (the others)."""
    prompts: Annotated[int, Field(strict=True, ge=1, le=1000)] = 8
    """How many prompts that name an erased concept are attacked."""
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)] = 0


class EvaluationSpec(Spec):
    """Ask an erased model and its base the same prompts from the same seeds, and compare."""

    kind: Literal["evaluation"] = "evaluation"
    model: ModelId
    suites: tuple[SuiteName, ...] = Field(default=(), max_length=len(SUITES))
    """Of the prompts that come with the base model. None and no `prompt_files`: all of them."""
    prompt_files: tuple[PromptFile, ...] = Field(default=(), max_length=20)
    """Public sets, such as I2P; see docs/evaluation.md for the formats."""
    attacks: tuple[AttackSpec, ...] = Field(default=(), max_length=len(ATTACKS))
    target: tuple[Words, ...] = Field(default=(), max_length=200)
    """Concepts or groups of the base's concepts.json that must be gone; what was erased, when
    left out."""
    detector: DetectorSpec | None = None
    """The base's own classifier, looking for the target, when left out."""
    split: Literal["tuning", "test"] = "test"
    """Choose settings with `tuning` prompts, report with `test`."""
    at_most: Annotated[int, Field(strict=True, ge=1, le=MAX_PROMPTS)] | None = None
    """Every k-th prompt of each suite, so that at most that many are asked."""
    num_inference_steps: Annotated[int, Field(strict=True, ge=1, le=MAX_STEPS)] = 20
    guidance_scale: Annotated[
        float, Field(strict=True, ge=0, le=MAX_GUIDANCE_SCALE, allow_inf_nan=False)
    ] = 5.0
    """Where a prompt file does not say."""
    seed: Annotated[int, Field(strict=True, ge=0, le=2**32)] = 0
    """Prompt i of a whole suite is drawn from seed + i, where a prompt file does not say."""

    @model_validator(mode="after")
    def _names_each_thing_once(self) -> Self:
        for what, names in (
            ("suites", self.suites),
            ("prompt_files", self.prompt_files),
            ("attacks", tuple(attack.name for attack in self.attacks)),
        ):
            if len(names) != len(set(names)):
                raise ValueError(f"{what}: each may be listed once")
        return self

    @property
    def measured_suites(self) -> tuple[str, ...]:
        if self.suites or self.prompt_files:
            return self.suites
        return SUITES
