"""How near pictures are to their prompts, and to the pictures of another model."""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from core.reports import Fidelity
from diffusion.likeness import Likeness

LEAST_KID = 20
"""Of fewer pictures a distance of distributions says nothing."""

NOTHING = Fidelity(
    clip_score_base=None, clip_score=None, feature_distance=None, kid=None, encoder=None
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
    texts = likeness.texts(prompts)
    base, erased = likeness.pictures(before), likeness.pictures(after)
    return Fidelity(
        clip_score_base=round(clip_score(texts, base), 4),
        clip_score=round(clip_score(texts, erased), 4),
        feature_distance=round(float((1 - (base * erased).sum(dim=1)).mean()), 6),
        kid=round(kernel_distance(base, erased), 6) if len(prompts) >= LEAST_KID else None,
        encoder=likeness.version,
    )


def clip_score(texts: Tensor, pictures: Tensor) -> float:
    """Mean cosine of each text and its picture, times 100 (arXiv:2104.08718, without its clip).

    Both are (n, d), of length 1.
    """
    return 100 * float((texts * pictures).sum(dim=1).mean())


def kernel_distance(one: Tensor, other: Tensor) -> float:
    """The unbiased squared maximum mean discrepancy with the cubic kernel of KID.

        k(x, y) = (x·y + 1)³

    Source: arXiv:1801.01401, section 4, which divides x·y by the width of features of the
    Inception network; ours have length 1 instead. Values may be below 0, as it is unbiased.

    Args:
        one, other: (n, d) and (m, d), n and m above 1, of length 1.
    """
    n, m = len(one), len(other)
    one, other = one.double(), other.double()

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T + 1).pow(3)

    within_one = kernel(one, one).fill_diagonal_(0).sum() / (n * (n - 1))
    within_other = kernel(other, other).fill_diagonal_(0).sum() / (m * (m - 1))
    return float(within_one + within_other - 2 * kernel(one, other).mean())
