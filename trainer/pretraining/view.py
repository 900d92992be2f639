"""Stage `view`: the image encoder learns to place pictures where the text encoder puts words.

The text side is fixed. A picture is pulled to the states of captions that fit it, away from
the other captions of the batch, and to its concept's vector in the bank.
"""

import json
import logging
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from trainer.pretraining import augmentation, concepts, vocabulary
from trainer.pretraining.captions import Articles, Caption, Captioner
from trainer.pretraining.classifier import ROUND_TRIPS, round_trip
from trainer.pretraining.folders import Folders
from trainer.pretraining.image_encoder import (
    PREPROCESSOR,
    new_image_encoder,
    start_from_patches,
)
from trainer.pretraining.pictures import load_pictures, to_model
from trainer.pretraining.rounds import batches
from trainer.pretraining.schedule import rate, set_rate
from trainer.pretraining.set_table import SetTable
from trainer.pretraining.text_encoder import encode

BATCH = 48
SCALE = 20.0
UNTOUCHED = 0.5
"""Share of pictures shown as they are."""

log = logging.getLogger(__name__)


def contrast(texts: Tensor, pictures: Tensor, fits: Tensor) -> Tensor:
    """Soft cross-entropy both ways; `fits` (n, n) tells which pictures a caption describes."""
    scores = SCALE * texts @ pictures.T
    toward = fits / fits.sum(1, keepdim=True)
    back = fits.T / fits.T.sum(1, keepdim=True)
    return (F.cross_entropy(scores, toward) + F.cross_entropy(scores.T, back)) / 2


class PictureCaptions:
    """Captions for numbered pictures, in their style or in none."""

    def __init__(self, labels: Tensor, styles: Tensor, seed: int) -> None:
        known = concepts.load()
        self.names = [concept.name for concept in known]
        self.styles = SetTable.load().style_names
        self.labels, self.numbers = labels.tolist(), styles.tolist()
        self.captioner = Captioner(vocabulary.load(known), Articles.load(), seed)

    def __call__(self, picture: int) -> Caption:
        style = self.styles[self.numbers[picture]]
        name = self.names[self.labels[picture]]
        return self.captioner.caption(name, None if style == concepts.TINTED else style)


def train(folders: Folders, *, steps: int, peak: float = 1e-3, seed: int = 0) -> None:
    """Writes `image_encoder`."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    pixels, labels, styles = load_pictures(folders)
    reproduced = round_trip(folders, pixels)
    captions_of = PictureCaptions(labels, styles, seed)
    tokenizer = CLIPTokenizer.from_pretrained(folders.tokenizer)
    student = CLIPTextModel.from_pretrained(folders.text_encoder).eval()
    bank = F.normalize(load_file(folders.bank)["bank"], dim=-1)

    viewer = new_image_encoder()
    start_from_patches(viewer, to_model(pixels))
    weights = list(viewer.parameters())
    optimizer = torch.optim.AdamW(
        weights, lr=peak, betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    began = time.monotonic()
    rounds = batches(torch.arange(len(pixels)), BATCH, generator)
    for step, rows in zip(range(steps), rounds, strict=False):
        set_rate(optimizer, rate(step, steps, peak=peak))
        captions = [captions_of(at) for at in rows.tolist()]
        with torch.no_grad():
            said = F.normalize(
                encode(student, tokenizer, [caption.text for caption in captions]), dim=-1
            )
        again = torch.rand(BATCH, generator=generator)[:, None, None, None] < ROUND_TRIPS
        clean = to_model(torch.where(again, reproduced[rows], pixels[rows]))
        changed = augmentation.worn(augmentation.moved(clean, generator), generator)
        untouched = torch.rand(BATCH, generator=generator)[:, None, None, None] < UNTOUCHED
        seen = torch.where(untouched, clean, changed)
        shown = F.normalize(viewer(seen).image_embeds, dim=-1)

        loose = torch.tensor([not caption.styled for caption in captions])[:, None]
        fits = (labels[rows][:, None] == labels[rows]) & (
            loose | (styles[rows][:, None] == styles[rows])
        )
        together = contrast(said, shown, fits.float())
        scores = SCALE * shown @ bank.T
        placed = F.cross_entropy(scores, labels[rows], label_smoothing=0.05)
        (together + placed).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

        if step % 50 == 0:
            right = (scores.argmax(1) == labels[rows]).float().mean().item()
            spent = time.monotonic() - began
            log.info("%d %.0fs contrast %.3f place %.3f (%.2f right)", step, spent,
                     together.item(), placed.item(), right)  # fmt: skip
        if step % 300 == 299 or step == steps - 1:
            viewer.save_pretrained(folders.image_encoder)
            report(viewer.eval(), student, tokenizer, pixels, labels)
            viewer.train()
    preprocessor = folders.image_encoder / "preprocessor_config.json"
    preprocessor.write_text(json.dumps(PREPROCESSOR, indent=1))


@torch.no_grad()
def report(
    viewer: torch.nn.Module,
    student: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    pixels: Tensor,
    labels: Tensor,
) -> None:
    """Log how often a picture lies nearest to its concept's name among all names."""
    articles = Articles.load()
    names = [f"a picture of {articles.named(concept.name)}" for concept in concepts.load()]
    said = F.normalize(encode(student, tokenizer, names), dim=-1)
    shown = torch.cat([viewer(to_model(part)).image_embeds for part in pixels.split(128)])
    best = (F.normalize(shown, dim=-1) @ said.T).argmax(1)
    log.info("pictures nearest to their names: %.3f", (best == labels).float().mean().item())
