"""Why a picture is withheld, or a prompt refused: never a black picture without a word."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

FinishReason = Literal["stop", "content_filtered", "cancelled", "error"]
Stage = Literal["prompt", "picture"]


class Finding(BaseModel):
    """What a screen of prompts or a detector of pictures objects to."""

    model_config = ConfigDict(frozen=True)

    stage: Stage
    detector: str
    """`words` for the screen of prompts."""
    category: str | None = None
    """Null where a detector could not run: then nothing is known of the picture."""
    score: float | None = None
    threshold: float | None = None
    """The least score that the policy objects to."""
    policy: str
    """Name and digest of the policy that was in force."""
