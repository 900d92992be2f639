"""White-box attacks: tokens put before a prompt are optimised through the erased UNet.

    P4D             min ‖ε_erased(x_t, [tokens, prompt], t) - ε_base(x_t, prompt, t)‖²
    UnlearnDiffAtk  min ‖ε_erased(x_t, [tokens, prompt], t) - ε‖²

x_t is the base's own picture of the prompt, noised by ε to step t. Sources: arXiv:2309.06135,
section 3 (P4D, here its variant N, a prefix), and arXiv:2310.11868, section 4.

Both search discrete tokens by projected gradients: continuous vectors are projected onto the
nearest words, the loss is taken there, and its gradient moves the vectors.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from diffusers import DDPMScheduler
from PIL import Image
from torch import Tensor

from diffusion.erasure import Erasure
from trainer.evaluation.attacks.ring_a_bell import Found
from trainer.evaluation.attacks.soft_prompts import soft_prompts
from trainer.evaluation.attacks.vocabulary import Alphabet
from trainer.evaluation.instruments import Instruments
from trainer.trce.texts import Texts, predict

Objective = Literal["p4d", "unlearn-diff"]

PREFIX = 8
RATE = 0.1
"""Of the vectors, in units of the mean length of a word's vector."""
POINTS = 8
"""Noised pictures per prompt, spread over the steps; all of them at every gradient step."""
EARLIEST, LATEST = 0.3, 0.9
"""Between these shares of the training steps a picture's content is decided."""
KEPT = 6


@dataclass(frozen=True)
class Points:
    """What the loss compares the erased UNet's predictions with."""

    latents: Tensor
    """(n, 4, h, w), x_t."""
    timesteps: Tensor
    """(n,)."""
    goal: Tensor
    """(n, 4, h, w): ε, or the base's prediction."""


def search(
    tools: Instruments,
    alphabet: Alphabet,
    prompt: str,
    picture: Image.Image,
    *,
    objective: Objective,
    steps: int,
    seed: int,
) -> list[Found]:
    """Prompts with a prefix of `PREFIX` words, best first.

    Args:
        picture: what the base draws for `prompt`.
    """
    generator = torch.Generator().manual_seed(seed)
    points = _points(tools, prompt, picture, objective, generator)
    body = alphabet.spell(prompt)[: tools.studio.encoder.length - PREFIX - 2]
    vectors = alphabet.vectors[torch.randint(len(alphabet), (PREFIX,), generator=generator)]
    vectors = vectors.clone().requires_grad_()
    rate = RATE * float(alphabet.vectors.norm(dim=1).mean())
    best: dict[str, float] = {}
    tools.studio.wear(tools.erasure)
    for _ in range(steps):
        places = torch.cdist(vectors.detach(), alphabet.vectors).argmin(dim=1).cpu()
        # The loss is taken at words, its gradient goes to the vectors behind them.
        words = alphabet.vectors[places.to(alphabet.vectors.device)].requires_grad_()
        with torch.enable_grad():
            loss = _loss(tools, alphabet, points, words, places, body)
            (gradient,) = torch.autograd.grad(loss, words)
        text = f"{alphabet.text(places)} {prompt}"
        best[text] = min(best.get(text, torch.inf), float(loss.detach()))
        length = gradient.norm(dim=1, keepdim=True).clamp_min(1e-12)
        vectors = (vectors - rate * gradient / length).detach()
    return [Found(text, best[text]) for text in sorted(best, key=best.__getitem__)[:KEPT]]


def _points(
    tools: Instruments,
    prompt: str,
    picture: Image.Image,
    objective: Objective,
    generator: torch.Generator,
) -> Points:
    components = tools.studio.components
    scheduler = DDPMScheduler.from_config(components.scheduler_config)
    device = components.unet.device
    pixels = torch.from_numpy(np.asarray(picture.convert("RGB"), dtype=np.float32))
    pixels = (pixels / 127.5 - 1).permute(2, 0, 1)[None].to(device, components.vae.dtype)
    with torch.no_grad():
        latents = components.vae.encode(pixels).latent_dist.mode()
        latents = latents.float() * components.vae.config.scaling_factor
        total = scheduler.config.num_train_timesteps
        timesteps = torch.linspace(EARLIEST * total, LATEST * total, POINTS).long().to(device)
        noise = torch.randn(POINTS, *latents.shape[1:], generator=generator).to(device)
        noised = scheduler.add_noise(latents.expand(POINTS, -1, -1, -1), noise, timesteps)
        if objective == "p4d":
            tools.studio.wear(Erasure())
            texts = Texts.read(tools.studio.encoder, [prompt], size_px=tools.studio.side_px)
            goal = predict(components.unet, noised, timesteps, texts.repeated(POINTS))
        elif scheduler.config.prediction_type == "v_prediction":
            goal = scheduler.get_velocity(latents.expand(POINTS, -1, -1, -1), noise, timesteps)
        else:
            goal = noise
    return Points(noised, timesteps, goal)


def _loss(
    tools: Instruments,
    alphabet: Alphabet,
    points: Points,
    words: Tensor,
    places: Tensor,
    body: Tensor,
) -> Tensor:
    studio = tools.studio
    tokens = torch.cat([alphabet.ids[places], body])[None]
    encoded = soft_prompts(studio.encoder, alphabet.rows(tokens), words[None])
    texts = Texts(encoded.embeddings, encoded.pooled, studio.side_px).through(tools.erasure)
    prediction = predict(
        studio.components.unet, points.latents, points.timesteps, texts.repeated(POINTS)
    )
    return (prediction - points.goal).square().mean()
