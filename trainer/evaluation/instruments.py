"""What an evaluation draws and judges with: two models, a detector, and what else there is."""

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from core.progress import Reporter
from core.reports import ModelIdentity
from diffusion.detectors.protocol import Detector
from diffusion.erasure import Erasure
from diffusion.judge import Judge
from diffusion.likeness import Likeness
from trainer.evaluation.album import Album
from trainer.evaluation.drawing import Order, Studio
from trainer.reporting import counter


@dataclass(frozen=True)
class Instruments:
    """All that one evaluation draws and judges with."""

    studio: Studio
    album: Album
    erasure: Erasure
    base: ModelIdentity
    model: ModelIdentity
    detector: Detector
    judge: Judge | None
    likeness: Likeness | None
    report: Reporter

    def draw_both(
        self, name: str, orders: Sequence[Order]
    ) -> tuple[list[Image.Image], list[Image.Image]]:
        """The base's pictures, and the erased model's."""
        advance = counter(self.report, f"drawing {name}", 2 * len(orders))
        draw = self.album.pictures
        before = draw(orders, Erasure(), weights=self.base.digest, advance=advance)
        after = draw(orders, self.erasure, weights=self.model.digest, advance=advance)
        return before, after
