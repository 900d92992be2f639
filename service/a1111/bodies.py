"""The bodies of A1111's `/sdapi/v1`, both ways. Fields that are not listed are ignored there."""

import json
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.jobs import Job
from core.manifests import Manifest
from core.registry import ModelRegistry
from core.specs import MAX_GUIDANCE_SCALE, MAX_IMAGES, MAX_SEED, MAX_STEPS, GenerationSpec
from service.a1111.samplers import OWN, scheduler_named
from service.delivery import DeadlineS
from service.sittings import Drawn
from service.translation import generation_spec

RANDOM_SEED = -1


class Overrides(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    sd_model_checkpoint: Annotated[str, Field(max_length=200)] | None = None


class TextToImage(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    prompt: str = ""
    negative_prompt: str | None = None
    seed: Annotated[int, Field(ge=RANDOM_SEED, le=MAX_SEED - MAX_IMAGES)] | None = None
    """-1 or nothing: any."""
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | None = None
    cfg_scale: Annotated[float, Field(ge=0, le=MAX_GUIDANCE_SCALE, allow_inf_nan=False)] | None = (
        None
    )
    width: Annotated[int, Field(ge=8, le=99_999)] | None = None
    height: Annotated[int, Field(ge=8, le=99_999)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 1
    n_iter: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 1
    sampler_name: Annotated[str, Field(max_length=50)] | None = None
    sampler_index: Annotated[str, Field(max_length=50)] | None = None
    """Its older name."""
    scheduler: Annotated[str, Field(max_length=50)] | None = None
    """The schedule of the noise levels."""
    override_settings: Overrides | None = None
    send_images: bool = True
    deadline_s: DeadlineS | None = None
    """No field of A1111's. Give the pictures up if they are not drawn in so many seconds."""

    @model_validator(mode="after")
    def _samples_as_we_can(self) -> Self:
        _ = self.scheduler_name
        return self

    @property
    def scheduler_name(self) -> str | None:
        return scheduler_named(self.sampler_name or self.sampler_index or "", self.scheduler or "")

    @property
    def checkpoint(self) -> str | None:
        given = self.override_settings
        return None if given is None else given.sd_model_checkpoint

    def spec(self, model_id: str, registry: ModelRegistry) -> GenerationSpec:
        """Raises RequestValidationError, ModelNotFound, UntrustedModel."""
        size = (self.width, self.height)
        whole = None if None in size else (self.width or 0, self.height or 0)
        return generation_spec(
            {
                "model": model_id,
                "prompt": self.prompt,
                "negative_prompt": self.negative_prompt,
                "seed": None if self.seed == RANDOM_SEED else self.seed,
                "num_inference_steps": self.steps,
                "guidance_scale": self.cfg_scale,
                "n": self.batch_size * self.n_iter,
                "scheduler": self.scheduler_name,
                **({} if whole else {"width": self.width, "height": self.height}),
            },
            registry,
            size=whole,
            called={
                "n": "batch_size",
                "num_inference_steps": "steps",
                "guidance_scale": "cfg_scale",
            },
        )


class TextToImageAnswer(BaseModel):
    images: list[str]
    """Base64; those that are withheld are left out, and named in `info`."""
    parameters: dict[str, Any]
    info: str
    """JSON."""

    @classmethod
    def of(
        cls, job: Job, drawn: list[Drawn], model: Manifest, sent: TextToImage
    ) -> "TextToImageAnswer":
        spec = job.spec
        assert isinstance(spec, GenerationSpec)
        there = [one for one in drawn if one.base64 is not None]
        info = {
            "prompt": spec.prompt,
            "all_prompts": [spec.prompt] * len(there),
            "negative_prompt": spec.negative_prompt,
            "all_negative_prompts": [spec.negative_prompt] * len(there),
            "seed": there[0].seed,
            "all_seeds": [one.seed for one in there],
            "width": spec.width,
            "height": spec.height,
            "sampler_name": sent.sampler_name or sent.sampler_index or OWN,
            "cfg_scale": spec.guidance_scale,
            "steps": spec.num_inference_steps,
            "batch_size": len(there),
            "sd_model_name": model.id,
            "sd_model_hash": model.content_digest[:10],
            "generation": job.id,
            "finish_reasons": [one.finish_reason for one in drawn],
            "findings": [one.finding and one.finding.model_dump() for one in drawn],
        }
        return cls(
            images=[one.base64 or "" for one in there] if sent.send_images else [],
            parameters=sent.model_dump(mode="json", exclude_none=True),
            info=json.dumps(info),
        )


class Options(BaseModel):
    """Everything else that a client may send here is ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sd_model_checkpoint: Annotated[str, Field(max_length=200)] | None = None


class ModelEntry(BaseModel):
    title: str
    model_name: str
    hash: str
    sha256: str
    filename: str
    config: str | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> "ModelEntry":
        digest = manifest.content_digest
        return cls(
            title=manifest.id,
            model_name=manifest.id,
            hash=digest[:10],
            sha256=digest,
            filename=manifest.id,
        )


class Sampler(BaseModel):
    name: str
    aliases: list[str] = []
    options: dict[str, str] = {}


class Scheduler(BaseModel):
    name: str
    label: str
    aliases: list[str] = []
    default_rho: float = -1
    need_inner_model: bool = False


class ScriptList(BaseModel):
    txt2img: list[str] = []
    img2img: list[str] = []


class ProgressState(BaseModel):
    skipped: bool = False
    interrupted: bool
    job: str
    """The id of the generation."""
    job_count: int
    job_no: int = 0
    sampling_step: int
    sampling_steps: int


class ProgressAnswer(BaseModel):
    progress: float
    eta_relative: float = 0.0
    state: ProgressState
    current_image: str | None = None
    textinfo: str | None = None


class PngInfoRequest(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    image: str
    """Base64, as it is or as a data URL."""


class PngInfoAnswer(BaseModel):
    info: str
    items: dict[str, str]
    parameters: dict[str, str] = {}
