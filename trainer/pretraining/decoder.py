"""Stage `decoder`: a sharper decoder on frozen latents.

Pixels and edges are matched as before; features of the classifier's first stages say what
matters to the eye, and in the end a small patch critic asks for crisp edges.
"""

import logging
import math
import time

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from transformers import ResNetForImageClassification

from trainer.pretraining.autoencoder import SCALE, edge_loss, encode_all, look, psnr
from trainer.pretraining.averaging import Average
from trainer.pretraining.folders import Folders
from trainer.pretraining.pictures import load_pictures, to_model
from trainer.pretraining.rounds import batches
from trainer.pretraining.schedule import rate, set_rate

BATCH = 8
NOISE = 0.08
"""Largest deviation of the noise on latents, so that drawn latents decode as well as real ones."""

log = logging.getLogger(__name__)


class PatchCritic(nn.Module):
    """Tells drawn from real, for patches of about 22 pixels: (n, 1, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 24, 4, 2, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(24, 48, 4, 2, 1),
            nn.GroupNorm(8, 48),
            nn.LeakyReLU(0.2),
            nn.Conv2d(48, 64, 3, 1, 1),
            nn.GroupNorm(8, 64),
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 1, 3, 1, 1),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        score: Tensor = self.layers(pictures)
        return score


def feature_loss(viewer: ResNetForImageClassification, drawn: Tensor, real: Tensor) -> Tensor:
    """Mean squared difference of channel-normalised features of the first three stages."""
    both = viewer.resnet(torch.cat([drawn, real]), output_hidden_states=True).hidden_states
    losses = []
    for features in both[:3]:
        normal = F.normalize(features, dim=1)
        mine, theirs = normal.chunk(2)
        losses.append((mine - theirs.detach()).square().sum(1).mean())
    return torch.stack(losses).mean()


def train(
    folders: Folders,
    *,
    steps: int,
    peak: float = 1e-3,
    features: float = 0.5,
    critic: float = 0.0,
    seed: int = 1,
) -> None:
    """Continue the decoder of `vae` on its own encoder's latents, and write it back.

    Args:
        features: Weight of the classifier's features; 0 before there is a classifier.
        critic: Weight of the patch critic's hinge loss.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pixels, _, _ = load_pictures(folders)
    model = AutoencoderKL.from_pretrained(folders.autoencoder).to(
        memory_format=torch.channels_last
    )
    latents = encode_all(model, pixels) * SCALE
    model.encoder.requires_grad_(requires_grad=False)
    model.quant_conv.requires_grad_(requires_grad=False)
    trained = nn.ModuleList([model.decoder, model.post_quant_conv])
    average = Average(trained, decay=0.998)
    optimizer = torch.optim.AdamW(
        trained.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
    )
    viewer = None
    if features:
        viewer = ResNetForImageClassification.from_pretrained(folders.classifier).eval()
        viewer.requires_grad_(requires_grad=False)
    patch = PatchCritic()
    opponent = torch.optim.AdamW(patch.parameters(), lr=5e-4, betas=(0.5, 0.9))

    began, running = time.monotonic(), 0.0
    rounds = batches(torch.arange(len(pixels)), BATCH, generator)
    for step, rows in zip(range(steps), rounds, strict=False):
        set_rate(optimizer, rate(step, steps, peak=peak, rise=50))
        real = to_model(pixels[rows]).to(memory_format=torch.channels_last)
        noise = torch.randn(latents[rows].shape, generator=generator)
        strength = NOISE * torch.rand(BATCH, 1, 1, 1, generator=generator)
        noisy = ((latents[rows] + strength * noise) / SCALE).contiguous(
            memory_format=torch.channels_last
        )
        drawn = model.decode(noisy).sample

        squared = (drawn - real).square().mean()
        loss = (drawn - real).abs().mean() + squared + 0.5 * edge_loss(drawn, real)
        if viewer is not None:
            loss = loss + features * feature_loss(viewer, drawn, real)
        if critic:
            hinge = (F.relu(1 - patch(real)) + F.relu(1 + patch(drawn.detach()))).mean()
            hinge.backward()
            opponent.step()
            if step > 200:
                loss = loss - critic * patch(drawn).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        opponent.zero_grad()
        average.update()

        running = squared.item() if step == 0 else 0.98 * running + 0.02 * squared.item()
        if step % 50 == 0:
            spent = time.monotonic() - began
            log.info("%d %.0fs %.2f dB loss %.4f", step, spent, psnr(running), loss.item())
        if step % 300 == 299 or step == steps - 1:
            with average.applied():
                model.save_pretrained(folders.autoencoder)
                look(model, pixels, folders)
    assert math.isfinite(running)
