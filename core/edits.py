"""How an erased model was made from its base: the part of its manifest that says so."""

from pydantic import BaseModel, ConfigDict

from core.specs import Concept, ModelId, SteeringOptions, TextualOptions


class StageCost(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float
    peak_memory_bytes: int
    """Of the process on a CPU, of PyTorch's allocations on a CUDA device."""


class LossCurve(BaseModel):
    """Stage 2's losses; each value is the mean over `every` steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every: int
    prompted: tuple[float, ...]
    """The hinge with the prompts to erase."""
    unprompted: tuple[float, ...]
    """The hinge without a prompt."""
    anchored: tuple[float, ...]
    """The mean squared change where nothing is to change, before its weight."""


class Edit(BaseModel):
    """How an erased model was made from its base."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: ModelId
    base_digest: str
    """`Manifest.content_digest` of the base at that time."""
    method: str
    concepts: tuple[Concept, ...]
    textual: TextualOptions
    steering: SteeringOptions | None = None
    """None: stage 1 alone."""
    seed: int
    neighbours: dict[str, tuple[str, ...]] = {}
    """Name of a concept -> what was found near it, and protected beside `textual.protect`."""
    merged: tuple[ModelId, ...] = ()
    """The erased models whose statistics were taken over."""
    seconds: float
    costs: dict[str, StageCost] = {}
    figures: dict[str, float] = {}
    """What the method measured of itself: condition number, relative change ..."""
    loss_curve: LossCurve | None = None
