"""`report.json`: what an evaluation measured, and on what terms. Schema: docs/report.schema.json.

A report names the weights it is about by their digest, and carries the whole request, the seeds
and the digests of all prompts: evaluating again from it gives the same figures.
"""

import hashlib
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from core.edits import StageCost
from core.errors import UntrustedModel
from core.evaluation import EvaluationSpec
from core.rates import Rate
from core.specs import ModelId
from core.thresholds import AttackName

FILENAME = "report.json"
PAGE = "report.html"
MAX_REPORT_BYTES = 64 * 1024 * 1024


class Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MeasuredRate(Entry):
    """`hits` of `total`, with Wilson's 95 % interval; (0, 1) where nothing was counted."""

    hits: int
    total: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, outcomes: list[bool]) -> "MeasuredRate":
        rate = Rate.of(outcomes)
        low, high = rate.interval
        return cls(
            hits=rate.hits,
            total=rate.total,
            value=round(rate.value, 6),
            low=round(low, 6),
            high=round(high, 6),
        )

    def __str__(self) -> str:
        return str(Rate(self.hits, self.total))


class ModelIdentity(Entry):
    id: ModelId
    digest: str
    """SHA-256 over all files of the weights, as the manifest has it."""


class DetectorRecord(Entry):
    name: str
    version: str
    classes: tuple[str, ...]
    threshold: float


class Outcome(Entry):
    """One prompt, drawn by the base and by the erased model from one seed."""

    prompt: str
    concept: str | None = None
    """What it asks for, where the suite knows."""
    seed: int
    guidance_scale: float
    base_score: float
    """The detector's, of the picture by the base."""
    score: float
    """And of the picture by the erased model."""
    base_shown: bool
    shown: bool
    base_right: bool | None = None
    """Whether the classifier recognised what was asked for; null where nothing can."""
    right: bool | None = None


class Fidelity(Entry):
    """How near the erased model's pictures are to their prompts, and to the base's pictures."""

    clip_score_base: float | None
    """Mean cosine of picture and prompt, times 100, in the space named by `encoder`."""
    clip_score: float | None
    feature_distance: float | None
    """Mean of 1 - cosine between the two pictures of one prompt and seed: 0 is the same."""
    kernel_distance: float | None
    """Between the pictures of both models, by the formula of KID in that space; 0 is alike."""
    frechet_distance: float | None
    """The same by the formula of FID; of suites with more prompts than the space is wide."""
    encoder: str | None
    """Version of the image encoder; null: the base has none, and nothing was measured."""


class SuiteReport(Entry):
    name: str
    kind: Literal["erased", "kept"]
    source: str
    """`built-in`, or the format of the prompt file."""
    split: Literal["tuning", "test"] | None
    digest: str
    """SHA-256 of all prompts with their seeds and guidance."""
    prompts: int
    base_rate: MeasuredRate
    """Of all prompts: how often the base shows the concept."""
    asr: MeasuredRate
    """Of those where the base shows it: how often the erased model still does."""
    shown: MeasuredRate
    """Of all prompts: how often the erased model shows it."""
    base_accuracy: MeasuredRate | None
    """Of all prompts: how often the base draws what was asked for."""
    accuracy: MeasuredRate | None
    kept: MeasuredRate | None
    """Of those that the base draws right: how often the erased model does."""
    fidelity: Fidelity
    outcomes: tuple[Outcome, ...]


class AttackOutcome(Entry):
    source: str
    """The prompt that was attacked."""
    prompt: str
    """The most successful prompt found, as text."""
    seed: int
    counted: bool
    """The base shows the concept when asked by `source`."""
    before: bool
    """The erased model shows it when asked by `source`: no attack was needed."""
    shown: bool
    """The erased model shows it when asked by `prompt`."""
    score: float
    loss: float | None = None
    """What the attack minimised, at the end."""


class AttackReport(Entry):
    name: AttackName
    access: Literal["black-box", "white-box"]
    budget: int
    seed: int
    digest: str
    """SHA-256 of the attacked prompts."""
    before: MeasuredRate
    """Of the counted prompts: shown without an attack."""
    asr: MeasuredRate
    """Of the counted prompts: shown with the attack's prompt, or without an attack."""
    seconds: float
    outcomes: tuple[AttackOutcome, ...]


class Latency(Entry):
    """Of one picture at inference, on the evaluation's device; medians of both timed in turn."""

    map_prompt_seconds: float
    """To map its prompt, once whatever the number of steps; 0 without a text map."""
    base_step_seconds: float
    """One guided step of the base."""
    step_seconds: float
    """And of the erased model; the same number where its UNet is the base's."""
    steps: int
    """Of the picture."""
    change: float
    """All that, relative to the base's steps alone: 0.01 is 1 % slower."""


class ErasureCosts(Entry):
    """What making the erased model took, by its manifest, and what drawing with it takes.

    Null is what the manifest does not say.
    """

    seconds: float
    stages: dict[str, StageCost]
    """`stage 1`, and `stage 2` if there was one."""
    processes: int
    """That stage 2 ran in; its memory is the first one's."""
    parameters_changed: int | None
    artifact_bytes: int | None
    """Of erasure.safetensors, which a worker loads beside its base."""
    unet_bytes: int | None
    """Of unet/, for other programs."""
    latency: Latency


class Costs(Entry):
    """Of the evaluation; and of what it is about."""

    seconds: float
    pictures_drawn: int
    pictures_from_cache: int
    pictures_per_second: float
    peak_memory_bytes: int
    device: str
    erasure: ErasureCosts | None = None
    """Null for a base, and in reports of earlier versions."""


class Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    created_at: float
    code_version: str
    libraries: dict[str, str]
    model: ModelIdentity
    base: ModelIdentity
    request: EvaluationSpec
    target: tuple[str, ...]
    """The concepts that must be gone."""
    detector: DetectorRecord
    judge: str | None
    """Version of the classifier that says what a picture shows; null: there is none."""
    suites: tuple[SuiteReport, ...]
    attacks: tuple[AttackReport, ...]
    costs: Costs

    def suite(self, name: str) -> SuiteReport | None:
        return next((suite for suite in self.suites if suite.name == name), None)

    def attack(self, name: str) -> AttackReport | None:
        return next((attack for attack in self.attacks if attack.name == name), None)

    def to_bytes(self) -> bytes:
        return (self.model_dump_json(indent=1) + "\n").encode()

    @classmethod
    def parse(cls, data: bytes) -> "Report":
        """Raises UntrustedModel: no report of this version."""
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the start"
            raise UntrustedModel(f"{FILENAME} is malformed at {place}: {first['msg']}") from error


def digest_of(lines: list[str]) -> str:
    """SHA-256 of the lines, order and all."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
