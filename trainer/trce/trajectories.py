"""TRCE stage 2, what is trained on: points of denoising trajectories, and the original UNet's
predictions there.

A trajectory of a prompt that shows the concept, drawn by the original UNet, passes through
latents x_t. At its early points, where the picture's meaning is decided, stage 2 teaches the
erased UNet where to steer. Everything the original UNet has to say about a point is said while
the trajectory passes it, so the original is never run again, and nothing is stored that will
not be read.

Source: arXiv:2503.07389, section 3.2 (stage 2).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor


@dataclass(frozen=True)
class SteeringPoints:
    """Early points of trajectories that lead to the concept; row i of each belongs together."""

    latents: Tensor
    """(n, 4, h, w), x_t: before the step at its timestep, never after it."""
    timesteps: Tensor
    """(n,) int64, the t of each x_t."""
    prompts: Tensor
    """(n,) int64, which prompt pair drew it."""
    safe: Tensor
    """(n, 4, h, w), f_safe: the prediction to come close to."""
    unsafe: Tensor
    """(n, 4, h, w), f_unsafe: the prediction to keep away from."""


@dataclass(frozen=True)
class AnchorPoints:
    """Points of unconditional trajectories, where the prediction is to stay as it is."""

    latents: Tensor
    """(n, 4, h, w), u_t."""
    timesteps: Tensor
    """(n,) int64."""
    noise: Tensor
    """(n, 4, h, w), the prediction without a prompt."""


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


def choose_points(trajectories: int, steps: int, *, count: int, seed: int) -> Tensor:
    """(count, 2) int64: a trajectory and one of its first `steps` steps, for each draw.

    Drawn in advance, so that only points that will be read are stored. Every round visits all
    trajectories once, in an order of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    rounds = -(-count // trajectories)
    order = [torch.randperm(trajectories, generator=generator) for _ in range(rounds)]
    step = torch.randint(0, steps, (count,), generator=generator)
    return torch.stack([torch.cat(order)[:count], step], dim=1)


def steering_points(
    unet: UNet2DConditionModel,
    unsafe: Tensor,
    safe: Tensor,
    empty: Tensor,
    chosen: Tensor,
    course: Course,
    *,
    target_scale: float,
    advance: Callable[[int], None],
) -> tuple[SteeringPoints, Tensor]:
    """Draw the trajectories of unsafe prompts and keep the chosen points.

    Trajectory i follows prompt i mod p. With e0 the original UNet,

        f_safe   = e0(x_t, "") + beta (e0(x_t, c_safe) - e0(x_t, ""))
        f_unsafe = e0(x_t, "") + beta (e0(x_t, c_unsafe) - e0(x_t, ""))

    Args:
        unet: the original one.
        unsafe: (p, 77, d), the prompts' embeddings as the original UNet reads them.
        safe: (p, 77, d), those of their partners.
        empty: (77, d), that of the empty prompt.
        chosen: (draws, 2), see `choose_points`.
        target_scale: beta.
        advance: told the number of trajectories finished since the last call.

    Returns:
        The distinct points that were chosen, and (draws,) the place of each draw among them.
    """
    distinct, place = torch.unique(chosen, dim=0, return_inverse=True)
    points = _empty_points(len(distinct), course.shape, unsafe.device)
    points.prompts.copy_(distinct[:, 0] % len(unsafe))
    for group in distinct[:, 0].unique().split(course.batch):
        rows = torch.isin(distinct[:, 0], group).nonzero().flatten()
        visit = _Recorder(
            unet=unet,
            empty=empty,
            unsafe=unsafe[group % len(unsafe)],
            safe=safe[group % len(unsafe)],
            wanted=[
                (int(step), int((group == trajectory).nonzero()), int(row))
                for row, (trajectory, step) in zip(rows, distinct[rows], strict=True)
            ],
            points=points,
            target_scale=target_scale,
            guidance_scale=course.guidance_scale,
        )
        _follow(course, group.tolist(), int(distinct[rows, 1].max()), visit, unsafe)
        advance(len(group))
    return points, place


@dataclass(frozen=True)
class _Recorder:
    """Sees each point of a group of trajectories, and keeps those that are wanted."""

    unet: UNet2DConditionModel
    empty: Tensor
    unsafe: Tensor
    safe: Tensor
    wanted: list[tuple[int, int, int]]
    """Step, place in the group, row of `points`."""
    points: SteeringPoints
    target_scale: float
    guidance_scale: float

    def __call__(self, step: int, timestep: Tensor, latents: Tensor) -> Tensor:
        """The guided prediction for the unsafe prompts, by which the trajectories go on."""
        kept = [(place, row) for at, place, row in self.wanted if at == step]
        here = torch.tensor([place for place, _ in kept], dtype=torch.long)
        n = len(latents)
        predicted = _predict(
            self.unet,
            torch.cat([latents, latents, latents[here]]),
            timestep,
            torch.cat([self.empty.expand_as(self.unsafe), self.unsafe, self.safe[here]]),
        )
        nothing, unsafe, safe = predicted.split([n, n, len(here)])
        for (place, row), safe_noise in zip(kept, safe, strict=True):
            base = nothing[place]
            self.points.latents[row] = latents[place]
            self.points.timesteps[row] = timestep
            self.points.safe[row] = base + self.target_scale * (safe_noise - base)
            self.points.unsafe[row] = base + self.target_scale * (unsafe[place] - base)
        return nothing + self.guidance_scale * (unsafe - nothing)


def anchor_points(
    unet: UNet2DConditionModel,
    empty: Tensor,
    count: int,
    course: Course,
    *,
    advance: Callable[[int], None],
) -> AnchorPoints:
    """Draw unconditional trajectories, each point with the prediction made on the way.

    Args:
        unet: the one whose unconditional behaviour is to stay: after stage 1, before stage 2.
        empty: (77, d), the empty prompt as that model reads it.
        count: trajectories; each gives `course.steps` points.
    """
    latents, timesteps, noise = [], [], []
    for group in torch.arange(count).split(course.batch):
        trajectories = [int(number) for number in group]

        def visit(_: int, timestep: Tensor, points: Tensor) -> Tensor:
            predicted = _predict(unet, points, timestep, empty.expand(len(points), -1, -1))
            latents.append(points)
            timesteps.append(timestep.expand(len(points)))
            noise.append(predicted)
            return predicted

        _follow(course, trajectories, course.steps - 1, visit, empty)
        advance(len(trajectories))
    return AnchorPoints(
        latents=torch.cat(latents), timesteps=torch.cat(timesteps), noise=torch.cat(noise)
    )


@torch.no_grad()
def _follow(
    course: Course,
    trajectories: Sequence[int],
    last: int,
    visit: Callable[[int, Tensor, Tensor], Tensor],
    like: Tensor,
) -> None:
    """Denoise from step 0 through `last`; `visit` sees (step, t, x_t) and predicts the noise."""
    scheduler = DDIMScheduler.from_config(course.scheduler_config)
    scheduler.set_timesteps(course.steps, device=like.device)
    starts = [
        torch.randn(course.shape, generator=torch.Generator().manual_seed(course.seed + number))
        for number in trajectories
    ]
    latents = torch.stack(starts).to(like) * scheduler.init_noise_sigma
    for step, timestep in enumerate(scheduler.timesteps[: last + 1]):
        noise = visit(step, timestep, latents)
        if step < last:
            latents = scheduler.step(noise, timestep, latents, return_dict=False)[0]


def _predict(
    unet: UNet2DConditionModel, latents: Tensor, timestep: Tensor, embeddings: Tensor
) -> Tensor:
    predicted: Tensor = unet(
        latents, timestep, encoder_hidden_states=embeddings, return_dict=False
    )[0]
    return predicted


def _empty_points(count: int, shape: tuple[int, int, int], device: torch.device) -> SteeringPoints:
    return SteeringPoints(
        latents=torch.empty(count, *shape, device=device),
        timesteps=torch.empty(count, dtype=torch.long, device=device),
        prompts=torch.empty(count, dtype=torch.long, device=device),
        safe=torch.empty(count, *shape, device=device),
        unsafe=torch.empty(count, *shape, device=device),
    )
