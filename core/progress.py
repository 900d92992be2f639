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


Reporter = Callable[[Progress], None]
