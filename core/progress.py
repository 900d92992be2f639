"""How far some long work has come; what workers report and clients read."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict, TypeAdapter


class Progress(BaseModel):
    """`done` of `total` units of `stage`."""

    model_config = ConfigDict(frozen=True)

    stage: str
    done: int
    total: int
    message: str = ""
    figures: dict[str, float] = {}
    """What the work measures of itself as it goes on, such as its losses."""
    previewed: int = 0
    """`JobNews.previews` shows the pictures as this many steps had left them; 0: none to see."""


class Preview(BaseModel):
    """What a picture that is being drawn will look like, as far as can be told by now.

    Only the latest of each picture is kept, apart from the job's record, and only while the job
    runs. Where a policy has pictures judged there are none: nothing unjudged is seen.
    """

    model_config = ConfigDict(frozen=True)

    index: int
    """Of the picture in its job."""
    step: int
    """How many steps had been done."""
    jpeg: str
    """The file in base64, at most 128 pixels on its longer side."""


PREVIEWS: TypeAdapter[list[Preview]] = TypeAdapter(list[Preview])
"""Those of a job, as they are kept."""

Reporter = Callable[[Progress], None]
