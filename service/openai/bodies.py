"""The bodies of `POST /v1/images/generations`, both ways."""

import re
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from core.fields import Text
from core.findings import Finding, FinishReason
from core.jobs import Job
from core.registry import ModelRegistry
from core.specs import (
    MAX_GUIDANCE_SCALE,
    MAX_IMAGES,
    MAX_PROMPT_CHARS,
    MAX_SEED,
    MAX_STEPS,
    GenerationSpec,
    Prompt,
)
from service.delivery import DeadlineS
from service.sittings import Drawn
from service.translation import generation_spec

SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")


class ImagesRequest(BaseModel):
    """Fields that are not listed are ignored, as OpenAI's older models do with newer ones."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    prompt: Prompt
    model: Annotated[str, Field(max_length=200)] | None = None
    n: Annotated[int, Field(strict=True, ge=1, le=MAX_IMAGES)] | None = None
    size: Annotated[str, Field(pattern=r"^(auto|[0-9]{1,5}x[0-9]{1,5})$")] | None = None
    """Sizes that OpenAI's clients have built in are made to fit the model."""
    response_format: Literal["b64_json", "url"] | None = None
    """Both where it is left out: some clients read one, some the other."""
    output_format: Literal["png", "jpeg", "webp"] | None = None
    output_compression: Annotated[int, Field(strict=True, ge=0, le=100)] | None = None
    stream: StrictBool | None = None
    partial_images: Annotated[int, Field(strict=True, ge=0, le=3)] | None = None
    """Previews of each picture in a stream, small; none where a policy has pictures judged."""
    negative_prompt: Annotated[Text, Field(max_length=MAX_PROMPT_CHARS)] | None = None
    num_inference_steps: Annotated[int, Field(strict=True, ge=1, le=MAX_STEPS)] | None = None
    guidance_scale: (
        Annotated[float, Field(strict=True, ge=0, le=MAX_GUIDANCE_SCALE, allow_inf_nan=False)]
        | None
    ) = None
    seed: Annotated[int, Field(strict=True, ge=0, le=MAX_SEED - MAX_IMAGES)] | None = None
    deadline_s: DeadlineS | None = None
    """Give the pictures up if they are not drawn so many seconds after they were asked for."""

    def spec(self, registry: ModelRegistry) -> GenerationSpec:
        """Raises RequestValidationError, ModelNotFound, UntrustedModel."""
        compression = self.output_compression
        fields = self.model_dump(
            include={
                *("prompt", "n", "output_format", "negative_prompt"),
                *("num_inference_steps", "guidance_scale", "seed"),
            }
        )
        chosen = SIZE.fullmatch(self.size or "")
        return generation_spec(
            fields
            | {
                # A name of another vendor's form is an unknown model, not a malformed field.
                "model": None if self.model is None else registry.known_as(self.model),
                "quality": None if compression is None else max(1, compression),
                "previews": self.partial_images if self.stream else None,
            },
            registry,
            size=(int(chosen[1]), int(chosen[2])) if chosen else None,
            called={"width": "size", "height": "size", "quality": "output_compression"},
        )


class InputDetails(BaseModel):
    image_tokens: int = 0
    text_tokens: int = 0


class Usage(BaseModel):
    """All zero: nothing is counted in tokens here."""

    input_tokens: int = 0
    input_tokens_details: InputDetails = InputDetails()
    output_tokens: int = 0
    total_tokens: int = 0


class ImageData(BaseModel):
    b64_json: str | None = None
    url: str | None = None
    revised_prompt: str | None = None
    """Always null: prompts are drawn as they are sent."""
    seed: int
    finish_reason: FinishReason
    finding: Finding | None = None
    """Why both are null."""

    @classmethod
    def of(cls, drawn: Drawn, url: str, response_format: str | None) -> Self:
        there = drawn.data is not None
        return cls(
            b64_json=drawn.base64 if response_format != "url" else None,
            url=url if there and response_format != "b64_json" else None,
            seed=drawn.seed,
            finish_reason=drawn.finish_reason,
            finding=drawn.finding,
        )


class Shown(BaseModel):
    """What every answer and event says of its pictures."""

    background: Literal["opaque"] = "opaque"
    output_format: Literal["png", "jpeg", "webp"]
    quality: Literal["auto"] = "auto"
    size: str


class ImagesResponse(Shown):
    created: int
    model: str
    data: list[ImageData]
    usage: Usage = Usage()


class PartialEvent(Shown):
    """What a picture will look like: at most 128 pixels on its longer side, whatever its size."""

    type: Literal["image_generation.partial_image"] = "image_generation.partial_image"
    b64_json: str
    created_at: int
    partial_image_index: int
    seed: int


class CompletedEvent(Shown):
    type: Literal["image_generation.completed"] = "image_generation.completed"
    b64_json: str
    created_at: int
    seed: int
    usage: Usage = Usage()


def shown(job: Job) -> Shown:
    spec = job.spec
    assert isinstance(spec, GenerationSpec)
    return Shown(output_format=spec.output_format, size=f"{spec.width}x{spec.height}")
