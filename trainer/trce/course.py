"""How a trajectory is drawn: from noise, by the model's own scheduler, as far as it is wanted."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from trainer.trce.texts import Texts, predict

ROWS = 4
"""Passes have a multiple of so many rows."""


@dataclass(frozen=True)
class Course:
    """How trajectories are drawn."""

    scheduler_config: dict[str, Any]
    """The model's own; DDIM is made from it."""
    steps: int
    """Of a whole trajectory."""
    guidance_scale: float
    shape: tuple[int, int, int]
    """Channels, height and width of the latents."""
    seed: int
    """Trajectory i starts from the noise of seed + i."""
    batch: int
    """Trajectories that are drawn together."""


def longest_first(group: Tensor, distinct: Tensor) -> tuple[Tensor, list[int]]:
    """The trajectories of a group, in the order in which `follow` takes them, and the last step
    of each at which it is wanted."""
    last = torch.stack([distinct[distinct[:, 0] == one, 1].max() for one in group])
    order = last.argsort(descending=True, stable=True)
    return group[order], last[order].tolist()


@torch.no_grad()
def follow(
    course: Course,
    trajectories: Sequence[int],
    last: Sequence[int],
    visit: Callable[[int, Tensor, Tensor], Tensor],
    device: torch.device,
) -> None:
    """Denoise each trajectory from step 0 through its last, and no further.

    Args:
        last: of each trajectory; falling, so that those that go on are always the first.
        visit: sees (step, t, x_t) of those that go on, and predicts the noise.
    """
    # A configuration of another scheduler may leave this out; latents are not pixels.
    config = {"clip_sample": False, **course.scheduler_config}
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(course.steps, device=device)
    starts = [
        torch.randn(course.shape, generator=torch.Generator().manual_seed(course.seed + number))
        for number in trajectories
    ]
    latents = torch.stack(starts).to(device) * scheduler.init_noise_sigma
    for step, timestep in enumerate(scheduler.timesteps[: last[0] + 1]):
        latents = latents[: sum(step <= end for end in last)]
        noise = visit(step, timestep, latents)
        if step < last[0]:
            latents = scheduler.step(noise, timestep, latents, return_dict=False)[0]


def predict_in_fours(
    unet: UNet2DConditionModel, latents: Tensor, timestep: Tensor, texts: Texts
) -> Tensor:
    """As `predict`, with the last row again and again where that makes passes of few sizes.

    What a library prepares for each size costs time, and stays in memory.
    """
    n = len(latents)
    rows = torch.arange(-(-n // ROWS) * ROWS).clamp(max=n - 1)
    return predict(unet, latents[rows], timestep, texts[rows])[:n]
