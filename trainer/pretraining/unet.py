"""Stage `unet`: the denoiser learns to draw cached latents from cached text states.

Two processes of one thread each, with averaged gradients, do a third more on two cores than
one process of two threads.
"""

import logging
import time
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.multiprocessing import spawn

from trainer.pretraining.autoencoder import SCALE
from trainer.pretraining.averaging import Average
from trainer.pretraining.denoiser import draw, new_denoiser, new_scheduler
from trainer.pretraining.folders import Folders
from trainer.pretraining.rounds import batches
from trainer.pretraining.schedule import rate, set_rate
from trainer.pretraining.sheets import sheet

BATCH = 32
"""Rows per step and process."""
CAPTION_DROP = 0.1
SNR_LIMIT = 5.0
"""γ of min-SNR-γ weighting, arXiv:2303.09556."""
SAVE_EVERY = 300

log = logging.getLogger(__name__)


class Noising:
    """x_t = √ᾱ z + √(1 - ᾱ) ε, and the weight min(SNR, γ) / SNR of its loss."""

    def __init__(self) -> None:
        alphas = new_scheduler().alphas_cumprod
        snr = alphas / (1 - alphas)
        self.alphas = alphas
        self.weights = snr.clamp(max=SNR_LIMIT) / snr

    def loss(
        self, model: nn.Module, latents: Tensor, states: Tensor, generator: torch.Generator
    ) -> Tensor:
        count = len(latents)
        times = torch.randint(len(self.alphas), (count,), generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        alpha = self.alphas[times].view(-1, 1, 1, 1)
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        guess = model(noisy, times, encoder_hidden_states=states).sample
        error = (guess - noise).square().mean((1, 2, 3))
        return (error * self.weights[times]).mean()


def share(weights: list[nn.Parameter], loss: Tensor) -> float:
    """Average the gradients, and return the average loss, over all processes."""
    grads = [weight.grad for weight in weights if weight.grad is not None]
    flat = torch.cat([*(grad.reshape(-1) for grad in grads), loss.view(1)])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for grad, part in zip(grads, flat[:-1].split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(part.view_as(grad))
    return flat[-1].item()


def train(
    rank: int,
    folders: Folders,
    processes: int,
    *,
    steps: int,
    peak: float = 8e-4,
    descent: float = 0.5,
    resume: int = 0,
    seed: int = 0,
) -> None:
    """One of the processes; the first writes `unet` and all that is needed to go on.

    Args:
        descent: The share of the steps in which the rate falls; 0 keeps it for a later run.
        resume: How often it has run before: if ever, it goes on from the state it left.
    """
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{(folders.work / 'unet.meeting').absolute()}",
        world_size=processes,
        rank=rank,
    )
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(1000 * seed + 10 * resume + rank)
    lessons = load_file(folders.lessons)
    latents, states, empty = lessons["latents"], lessons["states"], lessons["empty"]

    model, noising = new_denoiser(), Noising()
    weights = list(model.parameters())
    average = Average(model, decay=0.998)
    optimizer = torch.optim.AdamW(
        weights, lr=peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True
    )
    state = folders.work / "unet.state.safetensors"
    if resume:
        _restore(state, weights, average, optimizer)

    began, running = time.monotonic(), 0.0
    rounds = batches(torch.arange(len(lessons["row_picture"])), BATCH, generator)
    for step, rows in zip(range(steps), rounds, strict=False):
        set_rate(optimizer, rate(step, steps, peak=peak, rise=150, descent=descent))
        told = states[lessons["row_caption"][rows]].float()
        told[torch.rand(BATCH, generator=generator) < CAPTION_DROP] = empty.float()
        loss = noising.loss(model, latents[lessons["row_picture"][rows]], told, generator)
        loss.backward()
        shared = share(weights, loss.detach())
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.update()

        running = shared if step == 0 else 0.99 * running + 0.01 * shared
        if rank == 0 and step % 50 == 0:
            log.info("%d %.0fs %.4f", step, time.monotonic() - began, running)
        if rank == 0 and (step % SAVE_EVERY == SAVE_EVERY - 1 or step == steps - 1):
            save_file(_state(weights, average, optimizer), state)
            with average.applied():
                model.save_pretrained(folders.unet)
                look(model.eval(), folders, states, empty)
            model.train()
    dist.destroy_process_group()


def train_together(folders: Folders, *, steps: int, processes: int = 2) -> None:
    """Run `train` in that many processes, and wait for them."""
    (folders.work / "unet.meeting").unlink(missing_ok=True)
    spawn(partial(train, steps=steps), (folders, processes), nprocs=processes)


def look(model: UNet2DConditionModel, folders: Folders, states: Tensor, empty: Tensor) -> None:
    """Draw 48 captions spread over the lessons, weapons first."""
    every = torch.cat(
        [torch.arange(0, 1800, 75), torch.linspace(1900, len(states) - 1, 24).long()]
    )
    drawn = draw(model, states[every].float(), empty.float())
    autoencoder = AutoencoderKL.from_pretrained(folders.autoencoder).eval()
    with torch.no_grad():
        sheet(
            autoencoder.decode(drawn / SCALE).sample,
            folders.work / "unet.png",
            columns=12,
            scale=2,
        )


def _state(
    weights: list[nn.Parameter], average: Average, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    found = {"steps": torch.tensor(average.steps)}
    for at, (weight, mean) in enumerate(zip(weights, average.means, strict=True)):
        moments = optimizer.state[weight]
        found[f"{at}.weight"] = weight.detach().contiguous()
        found[f"{at}.mean"] = mean.contiguous()
        found[f"{at}.first"] = moments["exp_avg"].contiguous()
        found[f"{at}.second"] = moments["exp_avg_sq"].contiguous()
    return found


@torch.no_grad()
def _restore(
    path: Path, weights: list[nn.Parameter], average: Average, optimizer: torch.optim.Optimizer
) -> None:
    saved = load_file(path)
    average.steps = int(saved["steps"])
    for at, (weight, mean) in enumerate(zip(weights, average.means, strict=True)):
        weight.copy_(saved[f"{at}.weight"])
        mean.copy_(saved[f"{at}.mean"])
        optimizer.state[weight] = {
            "step": saved["steps"].float(),
            "exp_avg": torch.empty_like(weight).copy_(saved[f"{at}.first"]),
            "exp_avg_sq": torch.empty_like(weight).copy_(saved[f"{at}.second"]),
        }
