"""How a trajectory is drawn: from noise, by the model's own scheduler, as far as it is wanted."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from trainer.trce.passes import PADDED_TO
from trainer.trce.texts import Texts, predict


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
    """See `noise_seed`."""
    batch: int
    """Trajectories that are drawn together."""


def noise_seed(seed: int, kind: str, number: int) -> int:
    """Of the noise from which trajectory `number` of its kind starts in a run of that seed.

    Runs of neighbouring seeds, and the kinds of one run, share no noise.
    """
    digest = hashlib.sha256(f"{seed} {kind} {number}".encode()).digest()
    # Of a longer one torch's generator on a CPU would read as much.
    return int.from_bytes(digest[:4], "big")


def longest_first(group: Tensor, distinct: Tensor) -> tuple[Tensor, list[int]]:
    """The trajectories of a group, in the order in which `follow` takes them, and the last step
    of each at which it is wanted."""
    last = torch.stack([distinct[distinct[:, 0] == one, 1].max() for one in group])
    order = last.argsort(descending=True, stable=True)
    return group[order], last[order].tolist()


@torch.no_grad()
def follow(
    course: Course,
    kind: str,
    trajectories: Sequence[int],
    last: Sequence[int],
    visit: Callable[[int, Tensor, Tensor], Tensor],
    device: torch.device,
    *,
    begun: tuple[int, Tensor] | None = None,
    passed: Callable[[int, Tensor], None] = lambda *_: None,
) -> None:
    """Denoise each trajectory from step 0 through its last, and no further.

    Args:
        kind: of the trajectories, see `noise_seed`.
        last: of each trajectory; falling, so that those that go on are always the first.
        visit: sees (step, t, x_t) of those that go on, and predicts the noise.
        begun: what `passed` was told last, to go on from there.
        passed: told (the next step, the latents before it).
    """
    # A configuration of another scheduler may leave this out; latents are not pixels.
    config = {"clip_sample": False, **course.scheduler_config}
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(course.steps, device=device)
    if begun is None:
        seeds = [noise_seed(course.seed, kind, number) for number in trajectories]
        starts = [
            torch.randn(course.shape, generator=torch.Generator().manual_seed(one))
            for one in seeds
        ]
        begun = 0, torch.stack(starts) * scheduler.init_noise_sigma
    first, latents = begun[0], begun[1].to(device)
    for step in range(first, last[0] + 1):
        latents = latents[: sum(step <= end for end in last)]
        timestep = scheduler.timesteps[step]
        noise = visit(step, timestep, latents)
        if step < last[0]:
            latents = scheduler.step(noise, timestep, latents, return_dict=False)[0]
            passed(step + 1, latents)


def predict_in_fours(
    unet: UNet2DConditionModel, latents: Tensor, timestep: Tensor, texts: Texts
) -> Tensor:
    """As `predict`, with the last row again and again where that makes passes of few sizes.

    What a library prepares for each size costs time, and stays in memory.
    """
    n = len(latents)
    rows = torch.arange(-(-n // PADDED_TO) * PADDED_TO).clamp(max=n - 1)
    return predict(unet, latents[rows], timestep, texts[rows])[:n]
