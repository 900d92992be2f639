"""The schedulers that a request may name, and which of them a model can use.

Each is a class of diffusers with options; everything else of it comes from the model's own
configuration. With `_karras` it takes the noise levels of arXiv:2206.00364, equation 5, with
`_exponential` levels that are even in their logarithm, with `_beta` those of arXiv:2407.12173.
Not among them: DPM++ SDE, whose noise needs one more library, EDM, which is for models that were
trained on another process, and all that is made for models which predict a flow.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from core.errors import ModelUnsupported, SchedulerNotUsable

SCHEDULER_CONFIG = "scheduler/scheduler_config.json"
"""Where a model's folder says which one is its own."""


Levels = Literal["automatic", "karras", "exponential", "beta"]
"""Of noise; automatic ones are the model's own."""
FLAGS: dict[Levels, str] = {
    "karras": "use_karras_sigmas",
    "exponential": "use_exponential_sigmas",
    "beta": "use_beta_sigmas",
}
"""The options of diffusers that ask for them; no more than one may be true."""


@dataclass(frozen=True)
class Scheduler:
    class_name: str
    label: str
    """What A1111 calls it, and its readers find in a picture."""
    options: Mapping[str, Any] = field(default_factory=dict)
    levels: Levels = "automatic"
    max_steps: int | None = None

    @property
    def schedule(self) -> str:
        """What A1111 calls the noise levels."""
        return self.levels.capitalize()

    def with_levels(self, levels: Levels) -> "Scheduler":
        flags = {flag: name == levels for name, flag in FLAGS.items()}
        return replace(self, levels=levels, options={**self.options, **flags})


_UNCLIPPED = {"clip_sample": False}  # latents go beyond [-1, 1], where clipping is the default
_DPMPP = {"algorithm_type": "dpmsolver++", "lower_order_final": True}
_DPMPP_SDE = {"algorithm_type": "sde-dpmsolver++"}

_OF_ONE_SCHEDULE = {
    "ddim": Scheduler("DDIMScheduler", "DDIM", _UNCLIPPED),
    "ddpm": Scheduler("DDPMScheduler", "DDPM", _UNCLIPPED),
    "pndm": Scheduler("PNDMScheduler", "PLMS", {"skip_prk_steps": True}),
    "euler_a": Scheduler("EulerAncestralDiscreteScheduler", "Euler a"),
    "lcm": Scheduler("LCMScheduler", "LCM", _UNCLIPPED, max_steps=50),
    "tcd": Scheduler("TCDScheduler", "TCD", _UNCLIPPED, max_steps=50),
}
_OF_ALL = {
    "euler": Scheduler("EulerDiscreteScheduler", "Euler"),
    "heun": Scheduler("HeunDiscreteScheduler", "Heun"),
    "lms": Scheduler("LMSDiscreteScheduler", "LMS"),
    "dpm2": Scheduler("KDPM2DiscreteScheduler", "DPM2"),
    "dpm2_a": Scheduler("KDPM2AncestralDiscreteScheduler", "DPM2 a"),
    "dpmpp_2m": Scheduler("DPMSolverMultistepScheduler", "DPM++ 2M", _DPMPP),
    "dpmpp_2m_sde": Scheduler("DPMSolverMultistepScheduler", "DPM++ 2M SDE", _DPMPP_SDE),
    "dpmpp_2s": Scheduler("DPMSolverSinglestepScheduler", "DPM++ 2S", _DPMPP),
    "deis": Scheduler("DEISMultistepScheduler", "DEIS"),
    "unipc": Scheduler("UniPCMultistepScheduler", "UniPC"),
    "sa_solver": Scheduler("SASolverScheduler", "SA Solver"),
}
SCHEDULERS: dict[str, Scheduler] = {
    **_OF_ONE_SCHEDULE,
    **{name: one.with_levels("automatic") for name, one in _OF_ALL.items()},
    **{f"{name}_{has}": one.with_levels(has) for has in FLAGS for name, one in _OF_ALL.items()},
}
"""Public name -> what it means."""

OWN_ONLY = frozenset(
    {
        "CMStochasticIterativeScheduler",
        "DDIMParallelScheduler",
        "DDPMParallelScheduler",
        "EDMDPMSolverMultistepScheduler",
        "EDMEulerScheduler",
        "IPNDMScheduler",
    }
)
"""Classes of diffusers that can draw, too, where they are a model's own."""
PREDICTIONS = ("epsilon", "v_prediction", "sample")


def _known(name: str) -> str:
    if name not in SCHEDULERS:
        raise ValueError(f"no scheduler {name!r}; there are {', '.join(SCHEDULERS)}")
    return name


SchedulerName = Annotated[
    str, AfterValidator(_known), Field(max_length=30, json_schema_extra={"enum": [*SCHEDULERS]})
]


def check_own(model: str, config: Mapping[str, Any]) -> None:
    """Whether a model with this `scheduler_config.json` can be drawn with at all.

    Raises:
        ModelUnsupported.
    """
    can = sorted({one.class_name for one in SCHEDULERS.values()} | OWN_ONLY)
    if (found := config.get("_class_name")) not in can:
        raise ModelUnsupported(
            f"{model}: its scheduler is {found}, which cannot draw here; `_class_name` in "
            f"{SCHEDULER_CONFIG} may be {', '.join(can)}"
        )
    predicts = config.get("prediction_type", "epsilon")
    if predicts not in PREDICTIONS or config.get("use_flow_sigmas"):
        raise ModelUnsupported(
            f"{model}: its UNet predicts {'a flow' if predicts in PREDICTIONS else predicts}; "
            f"`prediction_type` in {SCHEDULER_CONFIG} may be {', '.join(PREDICTIONS)}"
        )


def usable(config: Mapping[str, Any]) -> list[str]:
    """Those that a model with this `scheduler_config.json` can use.

    A model whose own scheduler is none of these was trained on another process, with other noise.
    """
    classes = {one.class_name for one in SCHEDULERS.values()}
    known = config.get("_class_name") in classes
    predicts = config.get("prediction_type", "epsilon") in {"epsilon", "v_prediction"}
    return list(SCHEDULERS) if known and predicts else []


def check_usable(name: str, steps: int, config: Mapping[str, Any]) -> None:
    """Raises SchedulerNotUsable."""
    can = usable(config)
    if name not in can:
        raise SchedulerNotUsable(
            f"scheduler: this model cannot use {name!r}; it can use "
            f"{', '.join(can) or 'its own only'}: leave `scheduler` out for that"
        )
    most = SCHEDULERS[name].max_steps
    if most is not None and steps > most:
        raise SchedulerNotUsable(f"num_inference_steps: {name} takes at most {most} steps")


def label_of(config: Mapping[str, Any]) -> tuple[str, str]:
    """What A1111 calls a model's own scheduler, and its noise levels."""
    levels = (name for name, flag in FLAGS.items() if config.get(flag))
    wanted = config.get("algorithm_type"), next(levels, "automatic")
    for one in SCHEDULERS.values():
        asked = one.options.get("algorithm_type", wanted[0]), one.levels
        if one.class_name == config.get("_class_name") and asked == wanted:
            return one.label, one.schedule
    return str(config.get("_class_name")).removesuffix("Scheduler"), "Automatic"
