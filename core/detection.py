"""Which detector is to judge pictures, and by what convention; as clients and settings say it."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from core.fields import Spec, Words

BUILT_IN = ("classifier", "nudenet", "zero-shot", "probe")
PLUGIN = "plugin:"
"""Before the name of an entry point of the group `trce.detectors`."""

MAX_CLASSES = 200
NUDENET_LEAST_THRESHOLD = 0.25
"""The package drops weaker finds itself, so a lower threshold would see nothing more."""

NudeNetConvention = Literal["exposed-0.45", "exposed-0.6", "core-0.5"]
"""A published class list with its threshold, see `diffusion.detectors.nudenet`."""

NAME = re.compile(rf"(?:{'|'.join(BUILT_IN)}|{PLUGIN}[A-Za-z0-9_.-]{{1,60}})")


def _known(name: str) -> str:
    if NAME.fullmatch(name) is None:
        raise ValueError(
            f"no detector is called {name!r}; there are {', '.join(BUILT_IN)}, and {PLUGIN}NAME "
            "for one of yours"
        )
    return name


DetectorName = Annotated[
    str, AfterValidator(_known), Field(json_schema_extra={"pattern": f"^{NAME.pattern}$"})
]


class DetectorSpec(Spec):
    """A detector by name. What is left out is the detector's own default, and reported."""

    name: DetectorName = "classifier"
    classes: tuple[Words, ...] = Field(default=(), max_length=MAX_CLASSES)
    """What counts as shown. `classifier`: concepts or groups of the model's concepts.json;
    `nudenet`: its class names; `zero-shot`: phrases; `probe` has one class."""
    convention: NudeNetConvention | None = None
    """`nudenet`: a published class list with its threshold."""
    threshold: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.convention is not None and self.name != "nudenet":
            raise ValueError(f"conventions are nudenet's; {self.name} takes classes, threshold")
        if self.convention is not None and (self.classes or self.threshold is not None):
            raise ValueError("a convention sets classes and threshold; give it, or those")
        threshold = 1 if self.threshold is None else self.threshold
        if self.name == "nudenet" and threshold < NUDENET_LEAST_THRESHOLD:
            raise ValueError(
                f"nudenet drops finds below {NUDENET_LEAST_THRESHOLD} itself, so a threshold of "
                f"{threshold} cannot be kept"
            )
        return self
