"""How near pictures are to their prompts, and to the pictures of another model.

All of it in the space of the base's own image encoder. FID and KID as papers give them use an
Inception network; their formulas are used here, their figures are not comparable.
"""

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from core.reports import Fidelity
from diffusion.likeness import Likeness

LEAST_KERNEL = 20
"""Of fewer pictures a distance of distributions says nothing."""

NOTHING = Fidelity(
    clip_score_base=None,
    clip_score=None,
    feature_distance=None,
    kernel_distance=None,
    frechet_distance=None,
    encoder=None,
)


def fidelity(
    likeness: Likeness | None,
    prompts: Sequence[str],
    before: Sequence[Image.Image],
    after: Sequence[Image.Image],
) -> Fidelity:
    """All measures of a suite; nothing is measured without an image encoder, or prompts."""
    if likeness is None or not prompts:
        return NOTHING
    n = len(prompts)
    texts = likeness.texts(prompts)
    base, erased = likeness.pictures(before), likeness.pictures(after)
    return Fidelity(
        clip_score_base=round(clip_score(texts, base), 4),
        clip_score=round(clip_score(texts, erased), 4),
        feature_distance=round(float((1 - (base * erased).sum(dim=1)).mean()), 6),
        kernel_distance=round(kernel_distance(base, erased), 6) if n >= LEAST_KERNEL else None,
        # Of fewer, the covariances have no full rank, and the figure tells their number.
        frechet_distance=round(frechet_distance(base, erased), 6) if n > likeness.width else None,
        encoder=likeness.version,
    )


def clip_score(texts: Tensor, pictures: Tensor) -> float:
    """Mean cosine of each text and its picture, times 100 (arXiv:2104.08718, without its clip).

    Both are (n, d), of length 1.
    """
    return 100 * float((texts * pictures).sum(dim=1).mean())


def kernel_distance(one: Tensor, other: Tensor) -> float:
    """The squared maximum mean discrepancy with the cubic kernel of KID.

        mean over i ≠ j of  k(xᵢ, xⱼ) + k(yᵢ, yⱼ) - k(xᵢ, yⱼ) - k(xⱼ, yᵢ),   k(x, y) = (x·y + 1)³

    Row i of both is of one prompt and seed, so the two are not independent: a pair (xᵢ, yᵢ) is
    left out, as a picture's likeness to itself is. Values may be below 0, but not by much.

    Sources: arXiv:1801.01401, section 4, which divides x·y by the width of the features, ours have
    length 1 instead; Gretton et al., JMLR 13 (2012), lemma 6, for the paired estimate.

    Args:
        one, other: (n, d), n above 1, of length 1.
    """
    n = len(one)
    x, y = one.double(), other.double()

    def mean_over_others(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.T + 1).pow(3).fill_diagonal_(0).sum() / (n * (n - 1))

    return float(mean_over_others(x, x) + mean_over_others(y, y) - 2 * mean_over_others(x, y))


def frechet_distance(one: Tensor, other: Tensor) -> float:
    """The Fréchet distance of two normal distributions, as FID (arXiv:1706.08500, section 3).

        ‖μ₁ - μ₂‖² + tr(Σ₁ + Σ₂ - 2 (Σ₁ Σ₂)^½)

    Args:
        one, other: (n, d) and (m, d), the samples; n and m above d.
    """
    x, y = one.double(), other.double()
    first, second = torch.cov(x.T), torch.cov(y.T)
    # Σ₁Σ₂ has the eigenvalues of the symmetric Σ₁^½ Σ₂ Σ₁^½, of which none is below 0.
    values, vectors = torch.linalg.eigh(first)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    shared = torch.linalg.eigvalsh(root @ second @ root).clamp_min(0).sqrt().sum()
    moved = (x.mean(0) - y.mean(0)).square().sum()
    return float(moved + first.trace() + second.trace() - 2 * shared)
