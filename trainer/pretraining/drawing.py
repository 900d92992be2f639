"""Stage `pictures`: every concept in every style, as 64x64 pictures on white."""

import logging
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from trainer.pretraining import concepts
from trainer.pretraining.concepts import TINTED, Concept
from trainer.pretraining.folders import Folders
from trainer.pretraining.picture_sets import PictureSet, fetch
from trainer.pretraining.pictures import SIDE
from trainer.pretraining.set_table import SetTable

DRAWN = 58
"""Longest side of the drawing itself, in pixels; the rest is margin."""

log = logging.getLogger(__name__)


def frame(drawing: Image.Image) -> Tensor:
    """Crop to what is drawn, fit into `DRAWN`, and centre on white: (3, 64, 64) uint8."""
    drawing = drawing.convert("RGBA")
    visible = drawing.getchannel("A").point(lambda alpha: 255 if alpha > 8 else 0)
    drawing = drawing.crop(visible.getbbox())
    ratio = DRAWN / max(drawing.size)
    width, height = (max(1, round(side * ratio)) for side in drawing.size)
    drawing = drawing.resize((width, height), Image.Resampling.LANCZOS)

    page = Image.new("RGBA", (SIDE, SIDE), "white")
    page.alpha_composite(drawing, ((SIDE - width) // 2, (SIDE - height) // 2))
    return torch.from_numpy(np.asarray(page.convert("RGB")).copy()).permute(2, 0, 1).contiguous()


class Album:
    """All sets at hand, asked for a concept in a style."""

    def __init__(self, folders: Folders, table: SetTable) -> None:
        self.table = table
        self.sets = {name: PictureSet(folders.packages / name) for name in table.sets}
        noto = self.sets["noto"].characters
        self._sequence = {name: sequence for sequence, name in reversed(noto.items())}

    def emoji(self, set_name: str, short_name: str) -> Image.Image | None:
        """An emoji by its short name; sets that spell it otherwise are asked by sequence."""
        drawn = self.sets[set_name].draw(short_name)
        if drawn is None and (sequence := self._sequence.get(short_name)) is not None:
            bare = sequence.replace("-fe0f", "")
            for spelled in (sequence, bare, f"{bare}-fe0f"):
                name = self.sets[set_name].characters.get(spelled)
                if name is not None:
                    return self.sets[set_name].draw(name)
        return drawn

    def pictures(self, concept: Concept) -> Iterator[tuple[str, Image.Image]]:
        """(style, picture) for each style that has the concept."""
        for style, set_name in self.table.styles.items():
            if isinstance(concept.icons, str):
                drawn = self.emoji(set_name, concept.icons)
            elif style in concept.icons:
                drawn = self.icon(concept.icons[style])
            else:
                continue
            if drawn is None:
                log.warning("%s has no picture of %s", set_name, concept.name)
            else:
                yield style, drawn
        if concept.tint is not None and isinstance(concept.icons, dict):
            drawn = self.icon(concept.icons["ink"], concept.tint)
            if drawn is not None:
                yield TINTED, drawn

    def icon(self, path: str, colour: str | None = None) -> Image.Image | None:
        set_name, name = path.split("/")
        picture_set = self.sets[set_name]
        return picture_set.draw(name) if colour is None else picture_set.draw(name, colour=colour)


def draw_all(folders: Folders) -> None:
    """Write `pictures` (what training sees), `extras` (what the classifier sees besides), and
    `judges` (what nothing is trained on).

    Each file holds `pixels` (n, 3, 64, 64) uint8, `concept` (n,), and `style` (n,) or, for
    extras and judges, `set` (n,).
    """
    table = SetTable.load()
    fetch(folders.packages, table)
    album, known = Album(folders, table), concepts.load()
    styles = table.style_names

    drawn = [
        (frame(picture), number, styles.index(style))
        for number, concept in enumerate(known)
        for style, picture in album.pictures(concept)
    ]
    save_file(_columns(drawn, "style"), folders.pictures)
    log.info("%d pictures of %d concepts", len(drawn), len(known))

    for path, sets in ((folders.extras, table.extras), (folders.judges, table.judges)):
        foreign = [
            (frame(picture), number, at)
            for number, concept in enumerate(known)
            for at, set_name in enumerate(sets)
            if isinstance(concept.icons, str)
            and (picture := album.emoji(set_name, concept.icons)) is not None
        ]
        save_file(_columns(foreign, "set"), path)
        log.info("%s: %d pictures", path.stem, len(foreign))


def _columns(rows: list[tuple[Tensor, int, int]], third: str) -> dict[str, Tensor]:
    pixels, number, other = zip(*rows, strict=True)
    return {
        "pixels": torch.stack(pixels),
        "concept": torch.tensor(number),
        third: torch.tensor(other),
    }
