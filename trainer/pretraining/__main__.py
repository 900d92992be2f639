"""`python -m trainer.pretraining <stage> ...`: the stages of the default model.

They are listed in the order in which the shipped model was made. Each reads what earlier ones
left in `build/pretraining`, and can be repeated alone; `--steps` overrides its length.
"""

import argparse
import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch

from trainer.pretraining import (
    align,
    assemble,
    autoencoder,
    captions,
    card,
    classifier,
    concepts,
    decoder,
    distil,
    drawing,
    evaluate,
    glosses,
    lessons,
    teacher,
    unet,
    view,
)
from trainer.pretraining.folders import Folders


def _teacher(folders: Folders) -> None:
    names = [concept.name for concept in concepts.load()]
    words = " ".join([*captions.NAMED, *captions.STYLED, "noto twemoji fluent ink"])
    teacher.prepare(folders, [*names, *words.split()])


PREPARING: dict[str, Callable[[Folders], object]] = {
    "pictures": drawing.draw_all,
    "teacher": _teacher,
    "glosses": lambda folders: glosses.look_up(concepts.load(), folders.wordnet),
    "lessons": lessons.prepare,
    "assemble": assemble.assemble,
    "evaluate": evaluate.evaluate,
    "card": card.write,
}


@dataclass(frozen=True)
class Training:
    """A training stage and its steps; the card of the model says where it took fewer."""

    train: Callable[..., None]
    steps: int


TRAINING = {
    "autoencoder": Training(autoencoder.train, 2800),
    "distil": Training(distil.train, 500),
    "align": Training(align.train, 700),
    "classifier": Training(classifier.train, 1500),
    "unet": Training(unet.train_together, 6800),
    "decoder": Training(decoder.train, 2000),
    "view": Training(view.train, 1200),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer.pretraining", description=__doc__)
    parser.add_argument("stage", choices=[*PREPARING, *TRAINING], nargs="+")
    parser.add_argument("--steps", type=int, help="training steps instead of the stage's own")
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(asked.threads)
    folders = Folders()
    for name in asked.stage:
        if name in PREPARING:
            PREPARING[name](folders)
        else:
            stage = TRAINING[name]
            stage.train(folders, steps=asked.steps or stage.steps)


if __name__ == "__main__":
    main()
