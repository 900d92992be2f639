"""Stage `autoencoder`: pictures to latents and back, 64x64 to 8x8x4, as in Stable Diffusion."""

import logging
import math
import time

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from trainer.pretraining.averaging import Average
from trainer.pretraining.folders import Folders
from trainer.pretraining.pictures import SIDE, load_pictures, to_model
from trainer.pretraining.rounds import batches
from trainer.pretraining.schedule import rate, set_rate
from trainer.pretraining.sheets import sheet

SCALE = 0.18215
"""Stable Diffusion's scaling factor: latents times this have unit variance."""

WIDTHS = (24, 48, 96, 128)
BATCH = 8
KL_WEIGHT = 1e-3
MOVED = 0.3
"""Share of training pictures that are flipped and shifted by up to `SHIFT` pixels."""
SHIFT = 3

log = logging.getLogger(__name__)


def new_autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(WIDTHS),
        up_block_types=("UpDecoderBlock2D",) * len(WIDTHS),
        block_out_channels=WIDTHS,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIDE,
        scaling_factor=SCALE,
    ).to(memory_format=torch.channels_last)


def moved(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Some of the pictures mirrored and shifted; white comes in at the edges."""
    pictures = pictures.clone()
    for at in torch.nonzero(torch.rand(len(pictures), generator=generator) < MOVED).flatten():
        down, right = torch.randint(-SHIFT, SHIFT + 1, (2,), generator=generator).tolist()
        pictures[at] = pictures[at].flip(-1).roll((down, right), (-2, -1))
    return pictures


def edge_loss(drawn: Tensor, real: Tensor) -> Tensor:
    """Mean absolute difference of the two pictures' horizontal and vertical gradients."""
    error = drawn - real
    across = (error[..., 1:] - error[..., :-1]).abs().mean()
    down = (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
    return across + down


def psnr(squared_error: float) -> float:
    """In dB, for pictures in [-1, 1]."""
    return 10 * math.log10(4 / squared_error)


def train(folders: Folders, *, steps: int, peak: float = 2e-3, seed: int = 0) -> None:
    """L1 + L2 + 0.5 edges + KL; writes the averaged weights, with latents standardised."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pixels, _, _ = load_pictures(folders)
    model = new_autoencoder()
    average = Average(model, decay=0.998)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
    )

    began, running = time.monotonic(), math.nan
    rounds = batches(torch.arange(len(pixels)), BATCH, generator)
    for step, rows in zip(range(steps), rounds, strict=False):
        set_rate(optimizer, rate(step, steps, peak=peak))
        real = moved(to_model(pixels[rows]), generator).to(memory_format=torch.channels_last)
        posterior = model.encode(real).latent_dist
        drawn = model.decode(posterior.sample()).sample

        squared = (drawn - real).square().mean()
        divergence = 0.5 * (posterior.mean.square() + posterior.var - 1 - posterior.logvar).mean()
        loss = (drawn - real).abs().mean() + squared + 0.5 * edge_loss(drawn, real)
        (loss + KL_WEIGHT * divergence).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()

        running = squared.item() if step == 0 else 0.98 * running + 0.02 * squared.item()
        if step % 50 == 0:
            spent = time.monotonic() - began
            log.info("%d %.0fs %.2f dB KL %.2f", step, spent, psnr(running), divergence)
        if step % 500 == 499:
            with average.applied():
                model.save_pretrained(folders.autoencoder.with_suffix(".raw"))
                look(model, pixels, folders)

    with average.applied():
        standardise(model, pixels)
        model.save_pretrained(folders.autoencoder)
        look(model, pixels, folders)


@torch.no_grad()
def encode_all(model: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Latent means (n, 4, 8, 8), before the scaling factor."""
    parts = [model.encode(to_model(part)).latent_dist.mean for part in pixels.split(64)]
    return torch.cat(parts)


@torch.no_grad()
def standardise(model: AutoencoderKL, pixels: Tensor) -> None:
    """Fold mean μ and deviation σ of each latent channel into the 1x1 convolutions at the neck.

    Afterwards z' = (z - μ) / (SCALE σ), so that z' SCALE has zero mean and unit variance and
    the scaling factor is exactly Stable Diffusion's.
    """
    latents = encode_all(model, pixels)
    mean, factor = latents.mean((0, 2, 3)), 1 / (SCALE * latents.std((0, 2, 3)))
    channels = len(mean)

    into, out = model.quant_conv, model.post_quant_conv
    into.weight[:channels] *= factor[:, None, None, None]
    into.bias[:channels] = (into.bias[:channels] - mean) * factor
    into.bias[channels:] += 2 * factor.log()
    out.bias += out.weight[:, :, 0, 0] @ mean
    out.weight /= factor[None, :, None, None]


@torch.no_grad()
def look(model: AutoencoderKL, pixels: Tensor, folders: Folders) -> float:
    """Write a sheet of every 25th picture above its reconstruction; return their PSNR."""
    real = to_model(pixels[::25][:48])
    drawn = model.decode(encode_all(model, pixels[::25][:48])).sample.clamp(-1, 1)
    rows = [half for pair in zip(real.split(16), drawn.split(16), strict=True) for half in pair]
    sheet(torch.cat(rows), folders.work / "autoencoder.png")
    quality = psnr((drawn - real).square().mean().item())
    log.info("held-in reconstruction %.2f dB", quality)
    return quality
