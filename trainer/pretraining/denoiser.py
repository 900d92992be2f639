"""The denoiser, its noise schedule, and how to draw with them: Stable Diffusion 1.x, small."""

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor

from trainer.pretraining.text_encoder import WIDTH

WIDTHS = (96, 160)
LATENT = (4, 8, 8)


def new_denoiser() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=LATENT[-1],
        in_channels=LATENT[0],
        out_channels=LATENT[0],
        block_out_channels=WIDTHS,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * len(WIDTHS),
        up_block_types=("CrossAttnUpBlock2D",) * len(WIDTHS),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
        norm_num_groups=16,
    ).to(memory_format=torch.channels_last)


def new_scheduler() -> DDIMScheduler:
    """Stable Diffusion 1.x: scaled-linear betas, noise prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@torch.no_grad()
def draw(
    model: UNet2DConditionModel,
    states: Tensor,
    empty: Tensor,
    *,
    steps: int = 20,
    guidance: float = 5.0,
    seed: int = 0,
) -> Tensor:
    """Latents (n, 4, 8, 8) of texts given as states (n, 77, width), by DDIM."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(len(states), *LATENT, generator=generator)
    scheduler = new_scheduler()
    scheduler.set_timesteps(steps)
    both = torch.cat([empty.expand_as(states), states])
    for time in scheduler.timesteps:
        noise = model(torch.cat([latents, latents]), time, encoder_hidden_states=both).sample
        free, told = noise.chunk(2)
        latents = scheduler.step(free + guidance * (told - free), time, latents).prev_sample
    return latents
