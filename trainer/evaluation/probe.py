"""`python -m trainer.evaluation.probe`: fit a Q16-style probe to pictures of one's own."""

import argparse
import sys
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError

from core.errors import AppError, Invalid
from diffusion.detectors.probe import FILENAME, fit_probe
from diffusion.likeness import Likeness

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp"}
MAX_PICTURES = 20_000


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m trainer.evaluation.probe",
        description="Learn from two folders of pictures what is not fine, for the detector "
        f"`probe`; writes {FILENAME} into the model's folder, before the model is imported.",
    )
    parser.add_argument("--model", type=Path, required=True, metavar="DIR")
    parser.add_argument("--fine", type=Path, required=True, metavar="DIR")
    parser.add_argument("--not-fine", type=Path, required=True, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        fine, not_fine = _pictures(options.fine), _pictures(options.not_fine)
        likeness = Likeness.load(options.model)
        shown = torch.tensor([False] * len(fine) + [True] * len(not_fine))
        embeddings = likeness.pictures([*fine, *not_fine])
        fit_probe(embeddings, shown, options.model / FILENAME, scale=likeness.scale)
    except AppError as error:
        sys.stderr.write(f"{type(error).__name__}: {error.detail}\n")
        return 2
    sys.stdout.write(f"{options.model / FILENAME}: fitted to {len(shown)} pictures\n")
    return 0


def _pictures(folder: Path) -> list[Image.Image]:
    """Raises Invalid: none there, too many, or one that cannot be read."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not 0 < len(paths) <= MAX_PICTURES:
        raise Invalid(f"{folder} holds {len(paths)} pictures; 1 to {MAX_PICTURES} are needed")
    found = []
    for path in paths:
        try:
            with Image.open(path) as picture:
                found.append(picture.convert("RGB"))
        except (OSError, UnidentifiedImageError) as error:
            raise Invalid(f"{path} is no picture that can be read") from error
    return found


if __name__ == "__main__":
    sys.exit(main())
