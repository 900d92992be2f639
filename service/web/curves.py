"""Losses of a training as lines to draw: points of an SVG, computed here and not in a browser."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
    last: float


def curves(series: Mapping[str, Sequence[float]]) -> list[Curve]:
    """One curve for each loss with at least two values, each on its own scale."""
    return [
        Curve(TITLES.get(name, name), _points(values), values[0], values[-1])
        for name, values in series.items()
        if len(values) > 1
    ]


def _points(values: Sequence[float]) -> str:
    top = max(values) or 1.0
    step = WIDTH / (len(values) - 1)
    return " ".join(
        f"{place * step:.1f},{HEIGHT - max(value, 0) / top * HEIGHT:.1f}"
        for place, value in enumerate(values)
    )
