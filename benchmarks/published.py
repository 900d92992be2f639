"""TRCE's procedure as published (arXiv:2503.07389), written plainly: what `make bench-trce` is
measured against.

Stage 1 solves for every projection on its own, and sums its matrices up pair by pair. Stage 2
draws trajectories one by one, each to its end; draws an unconditional trajectory for every step
that it will train, as guided ones are drawn, with two predictions that are the same; keeps three
UNets; and asks them six times in each step. It is the same mathematics as ours.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from core.specs import SteeringOptions
from diffusion.erasure import Erasure
from trainer.trce.finetune import trainable
from trainer.trce.steering import hinge

Point = tuple[Tensor, Tensor]
"""A latent, (1, 4, h, w), and its timestep."""


def solve_each_layer(
    weights: Sequence[Tensor],
    unsafe: Tensor,
    safe: Tensor,
    kept: Tensor,
    *,
    preserve: float,
    ridge: float,
) -> list[Tensor]:
    """W' = W A B^-1 for every W, all in float64; arguments as in `trainer.trce.textual`."""
    n, d = unsafe.shape
    pull = preserve * kept + ridge * kept.trace() / d * torch.eye(d, dtype=torch.float64)
    edited = []
    for weight in weights:
        numerator = weight @ pull
        denominator = pull.clone()
        for e_m, e_s in zip(unsafe, safe, strict=True):
            numerator += torch.outer(weight @ e_s, e_m) / n
            denominator += torch.outer(e_m, e_m) / n
        edited.append(torch.linalg.solve(denominator, numerator.T).T)
    return edited


def steer(
    original: UNet2DConditionModel,
    scheduler_config: dict[str, Any],
    unsafe: Tensor,
    safe: Tensor,
    empty: Tensor,
    erasure: Erasure,
    options: SteeringOptions,
    *,
    seed: int,
) -> UNet2DConditionModel:
    """Stage 2, of one pair of prompts in each step.

    Args:
        original: the base's UNet; copied twice.
        unsafe: (p, 77, d), the prompts of the trajectories.
        safe: (p, 77, d), their partners.
        empty: (77, d).
        erasure: stage 1.
    """
    stage_one = copy.deepcopy(original)
    erasure.bake(stage_one)
    trained = copy.deepcopy(stage_one)
    nothing = empty[None]
    paths = [
        trajectory(original, scheduler_config, unsafe[None, i % len(unsafe)], nothing, options, i)
        for i in range(options.trajectories)
    ]
    quiet = [
        trajectory(original, scheduler_config, nothing, nothing, options, seed + i)
        for i in range(options.steps)
    ]

    parameters = trainable(trained)
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=options.learning_rate, weight_decay=options.weight_decay
    )
    generator = torch.Generator().manual_seed(seed)
    early = round(options.early * options.trajectory_steps)
    for step in range(options.steps):
        number = int(torch.randint(len(paths), (), generator=generator))
        x, t = paths[number][int(torch.randint(early, (), generator=generator))]
        chosen = torch.randperm(options.trajectory_steps, generator=generator)[: options.anchors]
        u = torch.cat([quiet[step][i][0] for i in chosen])
        u_t = torch.stack([quiet[step][i][1] for i in chosen])
        c_m, c_s = unsafe[None, number % len(unsafe)], safe[None, number % len(safe)]
        still = nothing.expand(options.anchors, -1, -1)

        with torch.no_grad():
            f_safe = guided(original, x, t, c_s, nothing, options.target_scale)
            f_unsafe = guided(original, x, t, c_m, nothing, options.target_scale)
            before = stage_one(u, u_t, still).sample
        loss = (
            hinge(trained(x, t, c_m).sample, f_safe, f_unsafe, margin=options.margin).mean()
            + hinge(trained(x, t, nothing).sample, f_safe, f_unsafe, margin=options.margin).mean()
        ) / 2
        change = (trained(u, u_t, still).sample - before).square().mean()
        optimizer.zero_grad()
        (loss + options.regularisation * change).backward()
        optimizer.step()
    return trained


def trajectory(
    unet: UNet2DConditionModel,
    scheduler_config: dict[str, Any],
    prompt: Tensor,
    nothing: Tensor,
    options: SteeringOptions,
    seed: int,
) -> list[Point]:
    """Every point of one guided trajectory, to its end."""
    scheduler = DDIMScheduler.from_config(scheduler_config)
    scheduler.set_timesteps(options.trajectory_steps)
    side = unet.config.sample_size
    latents = torch.randn(
        1, unet.config.in_channels, side, side, generator=torch.Generator().manual_seed(seed)
    )
    points = []
    for timestep in scheduler.timesteps:
        points.append((latents, timestep))
        with torch.no_grad():
            noise = guided(unet, latents, timestep, prompt, nothing, options.guidance_scale)
        latents = scheduler.step(noise, timestep, latents).prev_sample
    return points


def guided(
    unet: UNet2DConditionModel,
    latents: Tensor,
    timestep: Tensor,
    prompt: Tensor,
    nothing: Tensor,
    scale: float,
) -> Tensor:
    both = unet(torch.cat([latents] * 2), timestep, torch.cat([nothing, prompt])).sample
    without, with_prompt = both.chunk(2)
    return without + scale * (with_prompt - without)
