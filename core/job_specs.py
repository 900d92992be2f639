"""Every kind of job that can be asked for."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from core.evaluation import EvaluationSpec
from core.specs import ErasureSpec, GenerationSpec

JobSpec = Annotated[GenerationSpec | ErasureSpec | EvaluationSpec, Field(discriminator="kind")]
Kind = Literal["generation", "erasure", "evaluation"]

_specs: TypeAdapter[JobSpec] = TypeAdapter(JobSpec)


def parse_spec(text: str) -> JobSpec:
    """Raises pydantic's ValidationError: it is not one that this version understands."""
    return _specs.validate_json(text)
