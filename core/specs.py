"""What a client may ask for. Frozen, bounded on every side, and strict: "2" is no number."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    StrictBool,
    StringConstraints,
    Tag,
    WrapSerializer,
    field_validator,
    model_validator,
)
from pydantic_core import to_json

from core.fields import Spec, Text, Words
from core.schedulers import SchedulerName
from core.thresholds import PromoteIf

MAX_PROMPT_CHARS = 1000
MAX_STEPS = 100
MAX_GUIDANCE_SCALE = 30.0
MAX_IMAGES = 8
MAX_PREVIEWS = MAX_STEPS
MAX_SIDE_PX = 2048
MAX_SEED = 2**63 - 1
MAX_PRESETS = 32
MAX_CONCEPTS = 256
MAX_SYNONYMS = 200
MAX_CAPTIONS = 20_000
MAX_CAPTION_CHARS = 300
MAX_CAPTIONS_BYTES = 2_500_000
"""Of all of them as JSON: the model's manifest repeats them, and is read as far as 4 MiB."""
MAX_MERGED = 16
MAX_TRAINING_STEPS = 20_000

# A model id is also a folder name and a part of an address.
ModelId = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,98}[a-z0-9])?$", max_length=100)
]

Prompt = Annotated[Text, StringConstraints(min_length=1, max_length=MAX_PROMPT_CHARS)]
Caption = Annotated[Text, StringConstraints(min_length=1, max_length=MAX_CAPTION_CHARS)]


class GenerationSpec(Spec):
    """`n` pictures of one prompt; picture i is drawn from seed + i."""

    kind: Literal["generation"] = "generation"
    model: ModelId = "default"
    prompt: Prompt
    negative_prompt: Annotated[Text, StringConstraints(max_length=MAX_PROMPT_CHARS)] = ""
    width: Annotated[int, Field(strict=True, ge=8, le=MAX_SIDE_PX)] | None = None
    height: Annotated[int, Field(strict=True, ge=8, le=MAX_SIDE_PX)] | None = None
    num_inference_steps: Annotated[int, Field(strict=True, ge=1, le=MAX_STEPS)] = 20
    guidance_scale: Annotated[
        float, Field(strict=True, ge=0, le=MAX_GUIDANCE_SCALE, allow_inf_nan=False)
    ] = 5.0
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED - MAX_IMAGES)] | None = None
    scheduler: SchedulerName | None = None
    """None: the model's own."""
    n: Annotated[int, Field(strict=True, ge=1, le=MAX_IMAGES)] = 1
    output_format: Literal["png", "jpeg", "webp"] = "png"
    quality: Annotated[int, Field(strict=True, ge=1, le=100)] = 90
    """Of JPEG and WebP; PNG keeps every bit."""
    strict: StrictBool = False
    """Draw alone: the same bits every time, whatever else is being drawn."""
    previews: Annotated[int, Field(strict=True, ge=0, le=MAX_PREVIEWS)] = 0
    """How often each picture is shown on its way, small, at steps evenly apart."""


class Concept(Spec):
    """Something to erase: how people name it, and what is to appear instead."""

    name: Words
    synonyms: tuple[Words, ...] = Field(default=(), max_length=MAX_SYNONYMS)
    descriptions: tuple[Words, ...] = Field(default=(), max_length=MAX_SYNONYMS)
    """Phrases that mean the concept without naming it."""
    replacement: Words
    kind: Literal["object", "style", "identity", "unsafe"] = "object"

    @model_validator(mode="after")
    def _says_two_different_things(self) -> Self:
        words = [word.casefold() for word in self.words]
        twice = sorted({word for word in words if words.count(word) > 1})
        if twice:
            message = f"listed twice in concept {self.name!r}: {', '.join(twice)}; list each once"
            raise ValueError(message)
        if self.replacement.casefold() in words:
            raise ValueError(
                f"the replacement {self.replacement!r} of concept {self.name!r} is one of the "
                "words to erase; choose something that is to stay"
            )
        return self

    @property
    def words(self) -> tuple[str, ...]:
        """Everything that calls the concept up, name first."""
        return (self.name, *self.synonyms, *self.descriptions)


class Neighbour(Spec):
    """Something near an erased concept that must survive."""

    name: Words
    weight: Annotated[float, Field(strict=True, gt=0, le=100, allow_inf_nan=False)] = 1.0
    """1 is as much as any other neighbour; the group of them weighs the mean of their weights."""


def _named(given: Any) -> Any:
    return {"name": given} if isinstance(given, str) else given


class TextualOptions(Spec):
    """Stage 1 of TRCE, the closed form. Defaults: see the tables in docs/trce.md."""

    preserve: Annotated[float, Field(strict=True, gt=0, le=100, allow_inf_nan=False)] = 1.5
    """η, the weight of captions that are to keep their meaning."""
    ridge: Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)] = 0.1
    """ρ, the weight that pulls the map towards the identity."""
    eot_tokens: Literal["first", "all"] = "all"
    """Which [EoT] positions of a prompt are moved: the first, or the padding after it too."""
    moved_words: Literal["none", "styles", "all"] = "styles"
    """Of which concepts the words themselves are moved, and those after them, each onto its
    partner in the safe prompt."""
    protect: tuple[Annotated[Neighbour, BeforeValidator(_named)], ...] = Field(
        default=(), max_length=MAX_SYNONYMS
    )
    """Neighbours of the concept that must survive: names, or names with weights."""
    neighbours: Annotated[int, Field(strict=True, ge=0, le=MAX_SYNONYMS)] = 30
    """So many of the base's own concepts, those it reads most like what is erased, are found and
    protected beside those named; none where it does not say what it draws."""
    captions: tuple[Caption, ...] = Field(default=(), max_length=MAX_CAPTIONS)
    """Captions that are to keep their meaning, in place of the everyday ones that ship."""
    strength: Annotated[float, Field(strict=True, gt=0, le=2, allow_inf_nan=False)] = 1.0
    """s: the model is erased by I + s (T - I). 1 is what the closed form asks for."""

    @field_validator("captions")
    @classmethod
    def _fit_a_manifest(cls, captions: tuple[str, ...]) -> tuple[str, ...]:
        if (size := len(to_json(captions))) > MAX_CAPTIONS_BYTES:
            raise ValueError(
                f"{size} bytes together; all captions may have {MAX_CAPTIONS_BYTES} as JSON"
            )
        return captions

    @model_validator(mode="after")
    def _protects_nothing_twice(self) -> Self:
        names = [neighbour.name.casefold() for neighbour in self.protect]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"protected twice: {', '.join(twice)}; list each once")
        return self


class SteeringOptions(Spec):
    """Stage 2 of TRCE, training.

    The defaults are those of the shipped model, see the tables in docs/trce.md. Its learning
    rate is far too high for a model of true size: begin with "published-sd1" there.
    """

    steps: Annotated[int, Field(strict=True, ge=1, le=MAX_TRAINING_STEPS)] = 120
    """Of the optimiser."""
    batch: Annotated[int, Field(strict=True, ge=1, le=256)] = 8
    """Points of trajectories in each step."""
    anchors: Annotated[int, Field(strict=True, ge=1, le=256)] = 16
    """Points in each step of trajectories that lead elsewhere, where nothing is to change."""
    accumulation: Annotated[int, Field(strict=True, ge=1, le=256)] = 1
    """Parts that a batch is computed in, to need less memory."""
    learning_rate: Annotated[float, Field(strict=True, gt=0, le=0.1, allow_inf_nan=False)] = 6e-4
    weight_decay: Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)] = 0.0
    margin: Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)] = 0.01
    """How much nearer to the safe prediction, in mean squares per element; if `relative`, in
    units of the distance between the two."""
    relative: StrictBool = False
    """Measure every point's losses in units of what a prompt changes there. The paper does not, so
    late points, where that is a thousand times more, outweigh those where pictures are decided."""
    target_scale: Annotated[float, Field(strict=True, gt=0, le=100, allow_inf_nan=False)] = 6.0
    """β, the guidance of the predictions to steer to and from. The farther out they are, the more
    is asked of points that were dealt with already: with the published 16 neighbours suffer."""
    regularisation: Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)] = 100.0
    """λ, the weight of predictions elsewhere staying as they are."""
    trajectories: Annotated[int, Field(strict=True, ge=1, le=4096)] = 48
    """Ways to the concept that are drawn, each of another prompt and from other noise."""
    anchor_trajectories: Annotated[int, Field(strict=True, ge=1, le=1024)] = 2
    """Unconditional trajectories among those that lead elsewhere."""
    kept_trajectories: Annotated[int, Field(strict=True, ge=0, le=4096)] = 120
    """Trajectories among them that follow captions which are to keep their meaning; the paper
    has none."""
    trajectory_steps: Annotated[int, Field(strict=True, ge=2, le=MAX_STEPS)] = 20
    early: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)] = 0.5
    """The share of a trajectory's steps, from its noise on, that points are taken from."""
    guidance_scale: Annotated[
        float, Field(strict=True, ge=0, le=MAX_GUIDANCE_SCALE, allow_inf_nan=False)
    ] = 3.0
    """Of the trajectories."""
    autocast: StrictBool = False
    """Compute in bfloat16 where that is safe; weights and optimiser stay as they are."""
    gradient_checkpointing: StrictBool = False
    """Compute activations again when they are needed, to need less memory."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.accumulation > self.batch:
            raise ValueError(
                f"accumulation: a batch of {self.batch} has no {self.accumulation} parts"
            )
        return self


STEERING_PRESETS = {
    # arXiv:2503.07389: three epochs over the trajectories of twenty words with five seeds each.
    "published-sd1": {
        "steps": 300,
        "batch": 1,
        "anchors": 4,
        "learning_rate": 1e-6,
        "weight_decay": 0.01,
        "margin": 0.01,
        "relative": False,
        "target_scale": 16.0,
        "regularisation": 100.0,
        "trajectories": 100,
        "anchor_trajectories": 100,
        "kept_trajectories": 0,
        "trajectory_steps": 50,
        "early": 0.5,
        "guidance_scale": 3.0,
    },
}


def _steering_preset(given: Any) -> Any:
    if not isinstance(given, str):
        return given
    if given not in STEERING_PRESETS:
        raise ValueError(f"no settings {given!r}; there are: {', '.join(STEERING_PRESETS)}")
    return STEERING_PRESETS[given]


Steering = Annotated[
    SteeringOptions,
    BeforeValidator(
        _steering_preset, json_schema_input_type=SteeringOptions | Literal["published-sd1"]
    ),
]


# What is written can be sent again: empty lists, which nobody may send, are left out.
WrittenConcept = Annotated[
    Concept,
    WrapSerializer(
        lambda concept, dump: {
            name: value for name, value in dump(concept).items() if value not in ((), [])
        }
    ),
]


PresetName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,50}$")]
Presets = Annotated[
    Annotated[PresetName, Tag("name")]
    | Annotated[tuple[PresetName, ...], Field(min_length=1, max_length=MAX_PRESETS), Tag("names")],
    # So that what is wrong with the one is not said to be wrong with the other, too.
    Discriminator(lambda given: "names" if isinstance(given, list | tuple) else "name"),
]


class ErasureSpec(Spec):
    """Erase concepts from a base model; the result is a candidate model.

    What earlier models erased can be taken over from them, exactly and without reading a prompt
    again: `merge` names them, `remove` names concepts to leave out, `concepts` adds new ones.
    """

    kind: Literal["erasure"] = "erasure"
    base_model: ModelId
    preset: Presets | None = None
    """The name of a list of concepts that ships, or the names of several."""
    concepts: tuple[WrittenConcept, ...] = Field(default=(), max_length=MAX_CONCEPTS)
    """Concepts of your own, beside those of the presets."""
    merge: tuple[ModelId, ...] = Field(default=(), max_length=MAX_MERGED)
    """Erased models of the same base, whose concepts are erased in the new one, too."""
    remove: tuple[Words, ...] = Field(default=(), max_length=MAX_CONCEPTS)
    """Names of concepts of the merged models that the new one is to draw again."""
    method: Literal["trce"] = "trce"
    textual: TextualOptions = TextualOptions()
    """In a merge, what is not given is as in the merged models."""
    steering: Steering | None = None
    """Stage 2, training; null leaves the model at stage 1."""
    promote_if: PromoteIf | None = None
    """What a signed report must show before the result is served; null: nothing."""
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)] = 0

    @model_validator(mode="after")
    def _names_something_to_erase(self) -> Self:
        if self.preset is None and not self.concepts and not self.merge:
            raise ValueError("give `preset`, at least one of `concepts`, or models to `merge`")
        if self.remove and not self.merge:
            raise ValueError("`remove` takes concepts out of the models in `merge`: name those")
        if len(self.merge) != len(set(self.merge)):
            raise ValueError("`merge`: each model may be listed once")
        if len(self.presets) != len(set(self.presets)):
            raise ValueError("`preset`: each name may be listed once")
        names = [concept.name.casefold() for concept in self.concepts]
        if len(names) != len(set(names)):
            raise ValueError("each concept may be listed once; merge those with the same name")
        kept = {neighbour.name.casefold() for neighbour in self.textual.protect}
        both = kept & {word.casefold() for concept in self.concepts for word in concept.words}
        if both:
            raise ValueError(f"both erased and protected: {', '.join(sorted(both))}")
        return self

    @property
    def presets(self) -> tuple[str, ...]:
        return (self.preset,) if isinstance(self.preset, str) else self.preset or ()

    @property
    def asked_for(self) -> tuple[str, ...]:
        """What it names to erase, for people: presets, then concepts. Empty for a mere merge."""
        return (*self.presets, *(concept.name for concept in self.concepts))
