"""A scheduler per request: the model's own, or another made from its configuration."""

import copy
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import diffusers
import torch
from torch import Tensor

from core.errors import ModelUnsupported, SchedulerNotUsable
from core.schedulers import SCHEDULER_CONFIG, SCHEDULERS, check_usable

TRIED_STEPS = 3
REMEMBERED = 64
"""Of kinds and numbers of steps, for each base. Some take 200 ms to be begun, and 0.2 to be
copied."""


class Scheduler(Protocol):
    """What the denoising loop uses of a diffusers scheduler."""

    timesteps: Tensor
    init_noise_sigma: float | Tensor

    def set_timesteps(self, num_inference_steps: int, *, device: torch.device) -> None: ...
    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor: ...
    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, **options: Any
    ) -> tuple[Tensor, ...]: ...


@dataclass(frozen=True, eq=False)
class Kind:
    """A class of schedulers with its configuration."""

    of: Any
    config: Mapping[str, Any]
    takes: frozenset[str]
    """The parameters of its steps."""

    @classmethod
    def named(cls, class_name: str, config: Mapping[str, Any]) -> "Kind":
        """Raises ModelUnsupported: diffusers has no such scheduler."""
        found: Any = getattr(diffusers, class_name, None)
        is_scheduler = inspect.isclass(found) and issubclass(found, diffusers.SchedulerMixin)
        if not is_scheduler:
            raise ModelUnsupported(f"{class_name} is no scheduler that diffusers has")
        return cls(found, config, frozenset(inspect.signature(found.step).parameters))

    def begun(self, num_inference_steps: int) -> Scheduler:
        """One that is about to take its first step; its timesteps are on the CPU, where asking
        for one waits for no device.

        Raises:
            SchedulerNotUsable
        """
        try:
            scheduler: Scheduler = self.of.from_config(self.config)
            scheduler.set_timesteps(num_inference_steps, device=torch.device("cpu"))
        except Exception as error:
            # Numbers that do not go together are told of by errors of all sorts.
            raise SchedulerNotUsable(f"num_inference_steps: {error}") from error
        return scheduler

    def step_options(self, generator: torch.Generator) -> dict[str, Any]:
        """What the pipelines of diffusers give to its steps, too."""
        options = {"generator": generator, "eta": 0.0}
        return {name: value for name, value in options.items() if name in self.takes}


class SchedulerFactory:
    """Makes the schedulers of one model. They keep state between steps, so rows share none."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """
        Args:
            config: the model's own.

        Raises:
            ModelUnsupported: it names no scheduler of diffusers.
        """
        self._config = config
        self._own = Kind.named(str(config.get("_class_name")), config)
        self._named: dict[str, Kind] = {}
        # Not of a bound method: whoever is held by what it holds stays until the collector runs.
        self._begun = lru_cache(REMEMBERED)(Kind.begun)

    def create(
        self,
        num_inference_steps: int,
        *,
        name: str | None = None,
        generator: torch.Generator,
    ) -> tuple[Scheduler, dict[str, Any]]:
        """A scheduler, and the options of its steps.

        Args:
            name: one of `core.schedulers.SCHEDULERS`; None is the model's own.
            generator: those that add noise draw it from here.

        Raises:
            SchedulerNotUsable
        """
        if name is not None:
            check_usable(name, num_inference_steps, self._config)
        kind = self._kind(name)
        return copy.deepcopy(self._begun(kind, num_inference_steps)), kind.step_options(generator)

    def _kind(self, name: str | None) -> Kind:
        if name is None:
            return self._own
        if name not in self._named:
            known = SCHEDULERS[name]
            # Without its name: diffusers warns where that is of another class.
            config = {key: value for key, value in self._config.items() if key[0] != "_"}
            self._named[name] = Kind.named(known.class_name, {**config, **known.options})
        return self._named[name]


def try_own(model: str, config: Mapping[str, Any]) -> None:
    """Take a few steps of a model's own scheduler, on nothing.

    Raises:
        ModelUnsupported: it cannot take them.
    """
    own = Kind.named(str(config.get("_class_name")), config)
    options = own.step_options(torch.Generator().manual_seed(0))
    latents = torch.zeros(1, 4, 2, 2)
    try:
        scheduler = own.begun(TRIED_STEPS)
        for timestep in scheduler.timesteps:
            seen = scheduler.scale_model_input(latents, timestep)
            latents = scheduler.step(seen, timestep, latents, return_dict=False, **options)[0]
    except Exception as error:
        raise ModelUnsupported(
            f"{model}: its scheduler does not work as {SCHEDULER_CONFIG} has it: {error}"
        ) from error
