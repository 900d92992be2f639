"""Losses of a training as lines to draw: points of an SVG, computed here and not in a browser.

A loss jumps from one value to the next, since each is of a batch of its own. What it comes to is a
mean: lines are smoothed over a tenth of their values, and begin and end are told as such means.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

WIDTH, HEIGHT = 240, 72

TITLES = {
    "prompted": "With the prompts to erase",
    "unprompted": "Without a prompt",
    "anchored": "Change elsewhere",
}


@dataclass(frozen=True)
class Curve:
    title: str
    points: str
    """Of a polyline in a box of WIDTH by HEIGHT; the lower edge is zero."""
    first: float
    """The mean of the first tenth of the values."""
    last: float
    """That of the last tenth."""


def curves(series: Mapping[str, Sequence[float]]) -> list[Curve]:
    """One curve for each loss with at least two values, each on its own scale."""
    return [
        _curve(TITLES.get(name, name), values)
        for name, values in series.items()
        if len(values) > 1
    ]


def _curve(title: str, values: Sequence[float]) -> Curve:
    tenth = max(len(values) // 10, 1)
    smooth = [
        _mean(values[max(place - tenth // 2, 0) : place + tenth // 2 + 1])
        for place in range(len(values))
    ]
    return Curve(title, _points(smooth), fmean(values[:tenth]), fmean(values[-tenth:]))


def _mean(values: Sequence[float]) -> float:
    """`fmean` adds exactly, which costs twice as much and which no pixel shows."""
    return sum(values) / len(values)


def _points(values: Sequence[float]) -> str:
    top = max(values) or 1.0
    step = WIDTH / (len(values) - 1)
    return " ".join(
        f"{place * step:.1f},{HEIGHT - max(value, 0) / top * HEIGHT:.1f}"
        for place, value in enumerate(values)
    )
