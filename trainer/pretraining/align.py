"""Stage `align`: the text encoder learns which of the concepts a caption or description means.

Two losses on the states at the first [EoT]:
  place    cosine to one learnt vector per concept, the bank, as a classification;
  distil   distance from the teacher's vectors, for these texts and for general English.

The image encoder is fitted to this space afterwards (stage `view`).
"""

import json
import logging
import random
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from trainer.pretraining import concepts, vocabulary
from trainer.pretraining.captions import Articles, Captioner
from trainer.pretraining.folders import Folders
from trainer.pretraining.rounds import batches
from trainer.pretraining.schedule import rate, set_rate
from trainer.pretraining.set_table import SetTable
from trainer.pretraining.teacher import Teacher
from trainer.pretraining.text_encoder import Distillation, encode

CAPTIONS, DESCRIPTIONS, GENERAL = 40, 88, 48
"""Rows per step."""
WORD_DROP = 0.12
SCALE = 20.0
"""Sharpness of the cosines to the bank."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lessons:
    """What captions are built on, with the teacher's vectors, and general English."""

    vector: dict[str, Tensor]
    descriptions: list[tuple[int, str]]
    general: list[str]
    general_vectors: Tensor


def prepare(
    folders: Folders, names: list[str], words: dict[str, vocabulary.Vocabulary]
) -> Lessons:
    descriptions = [
        (number, text)
        for number, name in enumerate(names)
        for text in [*words[name].train, *words[name].called, *words[name].glosses]
    ]
    cores = list(dict.fromkeys([*names, *(text for _, text in descriptions)]))
    vectors = Teacher().embed(cores)
    general = json.loads(folders.teacher.with_suffix(".json").read_text())
    return Lessons(
        dict(zip(cores, vectors, strict=True)),
        descriptions,
        general,
        load_file(folders.teacher)["text"].float(),
    )


def thinned(text: str, order: random.Random) -> str:
    """The text without some of its words, so that no single one decides."""
    kept = [word for word in text.split() if order.random() > WORD_DROP]
    return " ".join(kept) or text


@torch.no_grad()
def first_bank(
    student: CLIPTextModel, tokenizer: CLIPTokenizer, lessons: Lessons, count: int
) -> Tensor:
    """The mean state of each concept's descriptions, centred and of unit length."""
    states = encode(student, tokenizer, [text for _, text in lessons.descriptions])
    owner = torch.tensor([number for number, _ in lessons.descriptions])
    means = torch.stack([F.normalize(states[owner == at], dim=-1).mean(0) for at in range(count)])
    return F.normalize(means - means.mean(0), dim=-1)


def train(folders: Folders, *, steps: int, peak: float = 7e-4, seed: int = 0) -> None:
    """Continues from `distil`; writes `text_encoder`, and the bank beside it."""
    torch.manual_seed(seed)
    generator, order = torch.Generator().manual_seed(seed), random.Random(seed)
    known = concepts.load()
    names, styles = [concept.name for concept in known], [*SetTable.load().styles, None]
    words = vocabulary.load(known)
    captioner = Captioner(words, Articles.load(), seed)
    lessons = prepare(folders, names, words)

    tokenizer = CLIPTokenizer.from_pretrained(folders.tokenizer)
    student = CLIPTextModel.from_pretrained(folders.distilled).train()
    distillation = Distillation()
    distillation.load_state_dict(load_file(folders.work / "distillation.safetensors"))
    bank = nn.Parameter(first_bank(student, tokenizer, lessons, len(names)))
    weights = [*student.parameters(), *distillation.parameters(), bank]
    optimizer = torch.optim.AdamW(
        weights, lr=peak, betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )

    by_concept = batches(torch.arange(len(names)), CAPTIONS, generator)
    by_description = batches(torch.arange(len(lessons.descriptions)), DESCRIPTIONS, generator)
    by_text = batches(torch.arange(len(lessons.general)), GENERAL, generator)
    began = time.monotonic()
    for step, rows, lines, general in zip(
        range(steps), by_concept, by_description, by_text, strict=False
    ):
        set_rate(optimizer, rate(step, steps, peak=peak))
        captions = [captioner.caption(names[at], order.choice(styles)) for at in rows.tolist()]
        lone = [lessons.descriptions[at] for at in lines.tolist()]
        cores = [caption.core for caption in captions] + [text for _, text in lone]
        texts = [caption.text for caption in captions]
        texts += [thinned(text, order) for _, text in lone]
        texts += [lessons.general[at] for at in general.tolist()]
        states = encode(student, tokenizer, texts)

        owner = torch.cat([rows, torch.tensor([number for number, _ in lone])])
        said = F.normalize(states[: len(owner)], dim=-1)
        scores = SCALE * said @ F.normalize(bank, dim=-1).T
        placed = F.cross_entropy(scores, owner, label_smoothing=0.05)
        targets = torch.stack([lessons.vector[core] for core in cores])
        taught = distillation(states, torch.cat([targets, lessons.general_vectors[general]]))
        (placed + taught).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

        if step % 25 == 0:
            spent = time.monotonic() - began
            right = (scores.argmax(1) == owner).float().mean().item()
            log.info(
                "%d %.0fs place %.3f (%.2f right) distil %.3f",
                step, spent, placed.item(), right, taught.item(),
            )  # fmt: skip
        if step % 100 == 99 or step == steps - 1:
            report(student, tokenizer, F.normalize(bank.detach(), dim=-1), names, words)
            student.save_pretrained(folders.text_encoder)
            save_file({"bank": bank.detach()}, folders.bank)


@torch.no_grad()
def report(
    student: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    bank: Tensor,
    names: list[str],
    words: dict[str, vocabulary.Vocabulary],
) -> None:
    """Log how often tuning descriptions and withheld synonyms find their concept's pictures."""
    student.eval()
    for kind in ("held", "tuning"):
        pairs = [
            (at, text) for at, name in enumerate(names) for text in getattr(words[name], kind)
        ]
        texts = [text for _, text in pairs]
        said = encode(student, tokenizer, texts)
        best = (F.normalize(said, dim=-1) @ bank.T).topk(5).indices
        right = best == torch.tensor([at for at, _ in pairs])[:, None]
        log.info(
            "%s %d: top-1 %.3f top-5 %.3f",
            kind,
            len(pairs),
            right[:, 0].float().mean().item(),
            right.any(1).float().mean().item(),
        )
    student.train()
