"""A scheduler per request, made from the model's own configuration."""

import inspect
from typing import Any, Protocol

import diffusers
import torch
from torch import Tensor

from core.errors import ModelUnsupported


class Scheduler(Protocol):
    """What the denoising loop uses of a diffusers scheduler."""

    timesteps: Tensor
    init_noise_sigma: float | Tensor

    def set_timesteps(self, num_inference_steps: int, *, device: torch.device) -> None: ...
    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor: ...
    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, **options: Any
    ) -> tuple[Tensor, ...]: ...


class SchedulerFactory:
    """Makes schedulers of one kind. They keep state between steps, so rows share none."""

    def __init__(self, config: dict[str, Any]) -> None:
        """Raises ModelUnsupported: the configuration names no scheduler of diffusers."""
        name = str(config.get("_class_name"))
        found: Any = getattr(diffusers, name, None)
        is_scheduler = inspect.isclass(found) and issubclass(found, diffusers.SchedulerMixin)
        if not is_scheduler:
            raise ModelUnsupported(f"{name} is no scheduler that diffusers has")
        self._class = found
        self._config = config
        self.takes_generator = "generator" in inspect.signature(found.step).parameters

    def create(self, num_inference_steps: int, device: torch.device) -> Scheduler:
        scheduler: Scheduler = self._class.from_config(self._config)
        scheduler.set_timesteps(num_inference_steps, device=device)
        return scheduler
