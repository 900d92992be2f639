"""TRCE stage 2, what is trained on: points of denoising trajectories, and the original UNet's
predictions there.

A trajectory of a prompt that shows the concept, drawn by the original UNet, passes through
latents x_t. At its early points, where the picture's meaning is decided, stage 2 teaches the
erased UNet where to steer. Everything the original UNet has to say about a point is said while
the trajectory passes it, so the original is never run again, and nothing is stored that will
not be read.

Source: arXiv:2503.07389, section 3.2 (stage 2).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypedDict

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from trainer.trce.course import Course, follow, longest_first, noise_seed, predict_in_fours
from trainer.trce.draft import Draft, Reached
from trainer.trce.ranks import ALONE, Ranks
from trainer.trce.texts import Texts

STEERED, ANCHORED = "steered", "anchored"
"""Kinds of trajectories."""
TEXTS = "texts"


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
    """Points of trajectories that lead elsewhere, where the prediction is to stay as it is."""

    latents: Tensor
    """(n, 4, h, w), u_t."""
    timesteps: Tensor
    """(n,) int64."""
    prompts: Tensor
    """(n,) int64, which text the prediction is for; 0 is the empty prompt."""
    noise: Tensor
    """(n, 4, h, w), the prediction."""
    effect: Tensor
    """(n,), the mean square of what the followed caption changes in the prediction; zero where
    none is followed."""


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
    unsafe: Texts,
    safe: Texts,
    empty: Texts,
    chosen: Tensor,
    course: Course,
    *,
    target_scale: float,
    advance: Callable[[int], None],
    draft: Draft | None = None,
    ranks: Ranks = ALONE,
) -> tuple[SteeringPoints, Tensor]:
    """Draw the trajectories of unsafe prompts and keep the chosen points.

    Trajectory i follows prompt i mod p. With e0 the original UNet,

        f_safe   = e0(x_t, "") + beta (e0(x_t, c_safe) - e0(x_t, ""))
        f_unsafe = e0(x_t, "") + beta (e0(x_t, c_unsafe) - e0(x_t, ""))

    Args:
        unet: the original one.
        unsafe: p prompts, as the original UNet reads them.
        safe: their partners.
        empty: one row, the empty prompt.
        chosen: (draws, 2), see `choose_points`.
        target_scale: beta.
        advance: told the number of trajectories finished since the last call, and with 0 that
            each has come a step further.
        draft: where they are kept while they are drawn, and taken up again; of this rank alone.
        ranks: which share the trajectories.

    Returns:
        The distinct points that were chosen, and (draws,) the place of each draw among them.
    """
    distinct, place = torch.unique(chosen, dim=0, return_inverse=True)
    device = unsafe.embeddings.device
    points = _blank_points(len(distinct), course.shape, device)
    points.prompts.copy_(distinct[:, 0] % len(unsafe))
    for group, last, rest in _groups(distinct, course, points, draft, advance, ranks):
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
        follow(course, STEERED, group.tolist(), last, visit, device, **rest)
    ranks.add_up([points.latents, points.timesteps, points.safe, points.unsafe])
    return points, place


@dataclass(frozen=True)
class _Recorder:
    """Sees each point of a group of trajectories, and keeps those that are wanted."""

    unet: UNet2DConditionModel
    empty: Texts
    unsafe: Texts
    safe: Texts
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
        predicted = predict_in_fours(
            self.unet,
            torch.cat([latents, latents, latents[here]]),
            timestep,
            self.empty.repeated(n) + self.unsafe[:n] + self.safe[here],
        )
        nothing, unsafe, safe = predicted.split([n, n, len(here)])
        for (place, row), safe_noise in zip(kept, safe, strict=True):
            base = nothing[place]
            self.points.latents[row] = latents[place]
            self.points.timesteps[row] = timestep
            self.points.safe[row] = base + self.target_scale * (safe_noise - base)
            self.points.unsafe[row] = base + self.target_scale * (unsafe[place] - base)
        return nothing + self.guidance_scale * (unsafe - nothing)


def choose_anchors(
    unconditional: int, prompted: int, steps: int, *, count: int, seed: int
) -> Tensor:
    """(count, 3) int64: a trajectory, one of its steps, and a text, for each draw.

    The first trajectories are unconditional, the others follow the texts 1, 2 ... At a point of
    theirs the prediction for the text is as likely to be chosen as that without.
    """
    # A stream of its own: the same raw numbers would pair texts with trajectories.
    generator = torch.Generator().manual_seed(noise_seed(seed, TEXTS, 0))
    points = choose_points(unconditional + prompted, steps, count=count, seed=seed)
    text = (points[:, 0] - unconditional + 1).clamp(min=0)
    text *= torch.randint(0, 2, (count,), generator=generator)
    return torch.cat([points, text[:, None]], dim=1)


def anchor_points(
    unet: UNet2DConditionModel,
    texts: Texts,
    chosen: Tensor,
    course: Course,
    *,
    unconditional: int,
    advance: Callable[[int], None],
    draft: Draft | None = None,
    ranks: Ranks = ALONE,
) -> tuple[AnchorPoints, Tensor]:
    """Draw the trajectories that lead elsewhere, and keep the chosen predictions.

    Args:
        unet: the original one.
        texts: the empty prompt, and then the captions that are to keep their meaning, as the
            model reads them whose behaviour is to stay: after stage 1, before stage 2.
        chosen: (draws, 3), see `choose_anchors`.
        unconditional: how many trajectories follow no text.
        draft: see `steering_points`.
        ranks: likewise.

    Returns:
        The distinct points that were chosen, and (draws,) the place of each draw among them.
    """
    distinct, place = torch.unique(chosen, dim=0, return_inverse=True)
    device = texts.embeddings.device
    blank = _blank_points(len(distinct), course.shape, device)
    points = AnchorPoints(
        *(blank.latents, blank.timesteps, distinct[:, 2].to(device), blank.safe),
        effect=torch.zeros(len(distinct), device=device),
    )
    for group, last, rest in _groups(distinct, course, points, draft, advance, ranks):
        rows = torch.isin(distinct[:, 0], group).nonzero().flatten()
        followed = (group - unconditional + 1).clamp(min=0)

        def visit(
            step: int,
            timestep: Tensor,
            latents: Tensor,
            group: Tensor = group,
            rows: Tensor = rows,
            followed: Tensor = followed,
        ) -> Tensor:
            n = len(latents)
            guided = followed[:n] > 0
            predicted = predict_in_fours(
                unet,
                torch.cat([latents, latents[guided]]),
                timestep,
                texts.repeated(n) + texts[followed[:n][guided]],
            )
            nothing, something = predicted[:n], predicted[:n].clone()
            something[guided] = predicted[n:]
            for row in rows[distinct[rows, 1] == step].tolist():
                trajectory, _, text = distinct[row].tolist()
                at = int((group == trajectory).nonzero())
                points.latents[row] = latents[at]
                points.timesteps[row] = timestep
                points.noise[row] = (something if text else nothing)[at]
                points.effect[row] = (something[at] - nothing[at]).square().mean()
            return nothing + course.guidance_scale * (something - nothing)

        follow(course, ANCHORED, group.tolist(), last, visit, device, **rest)
    ranks.add_up([points.latents, points.timesteps, points.noise, points.effect])
    return points, place


class _Rest(TypedDict):
    """What is left of a group, see `follow`."""

    begun: tuple[int, Tensor] | None
    passed: Callable[[int, Tensor], None]


def _groups(
    distinct: Tensor,
    course: Course,
    points: SteeringPoints | AnchorPoints,
    draft: Draft | None,
    advance: Callable[[int], None],
    ranks: Ranks,
) -> Iterator[tuple[Tensor, list[int], _Rest]]:
    """The trajectories for this rank to draw together, and the last wanted step of each, as
    `follow` takes them; but for what an earlier, killed run has drawn.

    In each round every rank has a group, but maybe in the last; `advance` counts those of all.
    """
    groups = distinct[:, 0].unique().split(course.batch)
    rounds = [groups[first : first + ranks.count] for first in range(0, len(groups), ranks.count)]
    own = [one for one in rounds if ranks.own < len(one)]
    reached = draft.resume(points) if draft else Reached()
    begun = reached.next_group
    if reached.groups:
        advance(sum(len(group) for one in own[: reached.groups] for group in one))
    for number, one in enumerate(own[reached.groups :], start=reached.groups):

        def passed(step: int, latents: Tensor, number: int = number) -> None:
            if draft:
                draft.keep(points, Reached(number, (step, latents)))
            advance(0)

        yield *longest_first(one[ranks.own], distinct), _Rest(begun=begun, passed=passed)
        begun = None
        if draft:
            draft.keep(points, Reached(number + 1))
        advance(sum(map(len, one)))


def _blank_points(count: int, shape: tuple[int, int, int], device: torch.device) -> SteeringPoints:
    """Zeros, to which the ranks add what each has drawn."""
    return SteeringPoints(
        latents=torch.zeros(count, *shape, device=device),
        timesteps=torch.zeros(count, dtype=torch.long, device=device),
        prompts=torch.zeros(count, dtype=torch.long, device=device),
        safe=torch.zeros(count, *shape, device=device),
        unsafe=torch.zeros(count, *shape, device=device),
    )
