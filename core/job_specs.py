"""Every kind of job that can be asked for."""

from typing import Annotated

from pydantic import Field

from core.evaluation import EvaluationSpec
from core.specs import ErasureSpec, GenerationSpec

JobSpec = Annotated[GenerationSpec | ErasureSpec | EvaluationSpec, Field(discriminator="kind")]
