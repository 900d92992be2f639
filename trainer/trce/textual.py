"""TRCE stage 1: one closed-form map of text space moves unsafe prompts onto safe ones.

The paper asks of every key and value projection W of cross-attention a W' that minimises

    mean ||W' e_m - W e_s||^2  +  eta mean ||W' e_k - W e_k||^2

    e_m   [EoT] embedding of a prompt that shows the concept, a column of length d
    e_s   the same of its partner, where something harmless stands in the concept's place
    e_k   any token embedding of a caption that is to keep its meaning

Setting the derivative by W' to zero gives W' B = W A, so W' = W A B^-1 with

    A = mean e_s e_m^T + eta K,    B = mean e_m e_m^T + eta K,    K = mean e_k e_k^T.

Neither A nor B knows W. So one map of text space serves every layer,

    T = A B^-1 = I + D B^-1,    D = mean (e_s - e_m) e_m^T,        W' = W T.

We add a pull towards the old weights, rho ||W' - W||^2 (Frobenius): text states have low rank, and
in the directions that no prompt uses the map would otherwise run wild. It adds rho I to A and
to B, and leaves D as it is. Solving for T - I instead of T loses no digits where little changes.

Weights. The means are over words, see `trainer.concepts.PromptPair`, and over tokens, so neither
longer lists of templates nor padding shift the balance. rho counts in units of the mean square
of the entries of e_k (the trace of K over d). So eta and rho have no unit: embeddings of
another scale or width, of another model, give the same balance at the same numbers.

Source: arXiv:2503.07389, section 3.1 (stage 1); the ridge and the common factor are ours.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from core.errors import SingularEdit
from trainer.trce.statistics import Statistics

MAX_CONDITION = 1e12
"""Beyond this, float64 leaves fewer than four digits of the solution."""


@dataclass(frozen=True)
class TextualEdit:
    text_map: Tensor
    """T, (d, d) float64."""
    condition: float
    """Of B: the ratio of its largest and smallest eigenvalue."""

    @property
    def relative_change(self) -> float:
        """||T - I|| / ||I||, Frobenius: 0 is no change, 1 a change as large as the identity."""
        identity = torch.eye(len(self.text_map), dtype=torch.float64, device=self.text_map.device)
        return float((self.text_map - identity).norm() / identity.norm())

    def at_strength(self, strength: float) -> Tensor:
        """I + s (T - I), (d, d) float64: 0 is the base, 1 the solution, more goes beyond it."""
        identity = torch.eye(len(self.text_map), dtype=torch.float64, device=self.text_map.device)
        # lerp is exact at both ends.
        return torch.lerp(identity, self.text_map, strength)


def text_map(
    statistics: Statistics, kept: Tensor, *, preserve: float, ridge: float
) -> TextualEdit:
    """The map T of text space that erases what `statistics` describe.

    Args:
        statistics: of all concepts together.
        kept: (d, d), K, the mean of e_k e_k^T.
        preserve: eta. Larger changes less.
        ridge: rho. Larger changes less, most where neither prompts nor captions reach.

    Raises:
        SingularEdit: B has no stable inverse, or is not made of numbers.
    """
    with one_thread():
        return _solved(statistics, kept, preserve=preserve, ridge=ridge)


@contextmanager
def one_thread() -> Iterator[None]:
    """LAPACK's eigenvalues wait for all threads in every small step.

    On a busy machine of two cores that took 18 s at d = 768, instead of 0.1 s on one thread.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _solved(statistics: Statistics, kept: Tensor, *, preserve: float, ridge: float) -> TextualEdit:
    K = kept.double()
    d = len(K)
    rho = ridge * K.trace() / d
    D = statistics.displacement / statistics.weight
    B = statistics.moment / statistics.weight + preserve * K
    B = (B + B.T) / 2 + rho * torch.eye(d, dtype=torch.float64, device=K.device)
    if not bool(B.isfinite().all() and D.isfinite().all()):
        raise SingularEdit("the text embeddings hold numbers that are not finite")

    eigenvalues = torch.linalg.eigvalsh(B)
    smallest, largest = float(eigenvalues[0]), float(eigenvalues[-1])
    condition = largest / smallest if smallest > 0 else float("inf")
    if condition > MAX_CONDITION:
        raise SingularEdit(
            f"the closed form has condition number {condition:.0e} at preserve {preserve:g} and "
            f"ridge {ridge:g}, too much for float64 (at most {MAX_CONDITION:.0e}); raise `ridge`"
        )

    # (T - I) B = D, and B is symmetric: solve B X = D^T for X = (T - I)^T.
    change = torch.cholesky_solve(D.T, torch.linalg.cholesky(B)).T
    T = torch.eye(d, dtype=torch.float64, device=K.device) + change
    return TextualEdit(text_map=T, condition=condition)
