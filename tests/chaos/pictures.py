"""The pictures that clients fetched, held against what they ordered and against one another."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from core.errors import PictureUnreadable
from core.picture_files import read
from core.provenance import Provenance
from tests.chaos.clients import pixels
from tests.chaos.journal import Order
from tests.chaos.verdict import Verdict

ROUNDING = 1
"""Of 255, between pictures of one seed that shared different batches."""
Drawn = tuple[str, str, int, int]
"""Model, prompt, seed and steps: what a picture depends on."""


def check_pictures(orders: Iterable[Order], digests: Mapping[str, str], verdict: Verdict) -> None:
    """The same order, the same picture; another model, prompt or seed, another one.

    Args:
        digests: of the files of each model, by its id.
    """
    drawn: dict[Drawn, list[tuple[str, np.ndarray]]] = defaultdict(list)
    for order in orders:
        if order.picture is None:
            continue
        if problem := _problem(order, order.picture, digests):
            verdict.wrong_pictures.append(f"that of job {order.job_id} {problem}")
            continue
        seen = order.job_id, pixels(order.picture)
        drawn[order.model, order.prompt, order.seed, order.steps].append(seen)
    verdict.wrong_pictures += _differing(drawn)
    verdict.wrong_pictures += _alike({one: found[0][1] for one, found in drawn.items()})


def _problem(order: Order, picture: bytes, digests: Mapping[str, str]) -> str:
    """What is wrong with one by itself, in words: it says which weights drew it for which job."""
    try:
        file = read(picture)
    except PictureUnreadable:
        return "cannot be read"
    origin = Provenance.decoded(file.record or "")
    if origin is None:
        return "does not say where it comes from"
    if origin.pixels != file.pixels:
        return "has other pixels than it says"
    told = origin.generation, origin.model, origin.model_digest
    if told != (order.job_id, order.model, digests[order.model]):
        return f"says that it is of {' '.join(told)}; ordered was {order.model}"
    return ""


def _differing(drawn: Mapping[Drawn, list[tuple[str, np.ndarray]]]) -> list[str]:
    return [
        f"jobs {first_id} and {job_id} drew {order} differently"
        for order, ((first_id, first), *others) in drawn.items()
        for job_id, picture in others
        if picture.shape != first.shape or np.abs(picture - first).max() > ROUNDING
    ]


def _alike(firsts: Mapping[Drawn, np.ndarray]) -> list[str]:
    return [
        f"{order} and {other} are the same picture"
        for order, first in firsts.items()
        for other, picture in firsts.items()
        if order < other and order[:3] != other[:3] and np.abs(first - picture).max() <= ROUNDING
    ]
