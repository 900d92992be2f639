"""The generations that a worker has claimed and not let go of."""

import math
from collections.abc import Iterator, Sequence

from core.jobs import Lease
from diffusion.denoiser import Denoiser
from worker.drawing import Drawing

STORING = 2
"""So many times the pictures of a batch are held at most, with those that are being stored."""


class Held:
    """The drawings of one worker, in the order in which they were begun."""

    def __init__(self) -> None:
        self._drawings: dict[str, Drawing] = {}
        self.claimed: Sequence[Lease] = ()
        """What came with the last claim; some of it may be a drawing by now, or gone."""

    def __len__(self) -> int:
        return len(self._drawings)

    def __iter__(self) -> Iterator[Drawing]:
        """Of those that are held now, whatever is let go of meanwhile."""
        return iter(list(self._drawings.values()))

    def __getitem__(self, token: str) -> Drawing:
        return self._drawings[token]

    @property
    def leases(self) -> list[Lease]:
        return [drawing.lease for drawing in self]

    @property
    def alone(self) -> bool:
        """Whether what is drawn is to have no company."""
        return any(lease.alone for lease in self.leases)

    @property
    def stored(self) -> int:
        """How many pictures of those that are held have been stored, or could not be."""
        return sum(image.done() for drawing in self for image in drawing.images.values())

    def add(self, drawing: Drawing) -> None:
        self._drawings[drawing.lease.token] = drawing

    def let_go(self, drawing: Drawing) -> None:
        """Its rows leave the batch; what was not stored by now need not be."""
        drawing.let_go = True
        for key in drawing.keys:
            drawing.variant.denoiser.leave(key)
        del self._drawings[drawing.lease.token]

    def free(self, rows: int) -> int:
        """How many pictures there is room for beside those that are held.

        Args:
            rows: pictures of a batch.
        """
        return min(
            rows - sum(len(drawing.undrawn) for drawing in self),
            # Pictures that are judged or stored slowly may not pile up.
            STORING * rows - sum(one.spec.n for one in self if one.variant.late_check.passed),
        )

    def overdrawn(self, rows: int) -> list[str]:
        """Models of which nothing more is to be claimed: they are still being checked, and as many
        pictures wait for that as may.

        Args:
            rows: pictures of a batch.
        """
        waiting = [one for one in self if one.drawn and not one.variant.late_check.passed]
        if sum(one.spec.n for one in waiting) < STORING * rows:
            return []
        return sorted({one.spec.model for one in waiting})

    def denoisers(self) -> list[Denoiser]:
        """Those with rows, each once."""
        waiting = [one.variant.denoiser for one in self if not one.drawn]
        return list({id(denoiser): denoiser for denoiser in waiting}.values())

    def drawn_by(self, denoiser: Denoiser) -> list[Drawing]:
        """Those with rows in a batch."""
        return [one for one in self if one.variant.denoiser is denoiser and not one.drawn]

    def largest_px(self, denoiser: Denoiser) -> tuple[int, int]:
        """Width and height of the largest picture in a batch."""
        specs = [one.spec for one in self if one.variant.denoiser is denoiser]
        return max(((spec.width or 0, spec.height or 0) for spec in specs), key=math.prod)
