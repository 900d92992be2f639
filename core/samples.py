"""Samples: what a few prompts draw before an erasure, and as far as it has come by now."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

MAX_SAMPLES = 8
MAX_JPEG_CHARS = 64 * 1024
BASE, STAGE_ONE = "base", "stage-1"


class Sample(BaseModel):
    model_config = ConfigDict(frozen=True)

    prompt: str
    seed: int
    jpeg: Annotated[str, StringConstraints(max_length=MAX_JPEG_CHARS)]
    """The file in base64, at most 128 pixels on its longer side."""


class Samples(BaseModel):
    """One picture for each of the prompts, which are the same in all rounds of a job.

    The first round of an attempt and the latest are kept, as long as the job's record: bounded,
    and apart from it. Where a policy has pictures judged there are none: nothing unjudged is seen.
    """

    model_config = ConfigDict(frozen=True)

    after: Annotated[str, StringConstraints(pattern=r"^(base|stage-1|step-[0-9]{1,6})$")]
    """`base`: before anything was erased. `step-N`: of stage 2."""
    pictures: Annotated[tuple[Sample, ...], Field(max_length=MAX_SAMPLES)]

    @property
    def when(self) -> str:
        """In words, as in "drawn by the base", "drawn after step 40"."""
        if self.after == BASE:
            return "by the base"
        return f"after {self.after.replace('-', ' ')}"


ROUNDS: TypeAdapter[list[Samples]] = TypeAdapter(list[Samples])
"""Those of a job, as they are kept."""
