"""How far some long work has come; what trainers report and clients read."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict


class Progress(BaseModel):
    """`done` of `total` units of `stage`."""

    model_config = ConfigDict(frozen=True)

    stage: str
    done: int
    total: int
    message: str = ""
    figures: dict[str, float] = {}
    """What the work measures of itself as it goes on, such as its losses."""


Reporter = Callable[[Progress], None]
