"""The figures as a picture: pictures a second and p95 by clients, and each figure over its aim."""

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.serving.aims import AIMS

COLOURS = {"naive": "#b0b0b0", "service": "#1f6f8b"}


def draw(result: dict[str, float], detail: dict[str, Any], path: Path) -> None:
    figure, (speed, latency, ratios) = plt.subplots(1, 3, figsize=(15, 4.5), layout="constrained")
    if "throughput" in detail:
        _by_clients(speed, detail["throughput"]["contenders"], "pictures_per_s", "pictures/s")
        limit = statistics.median(detail["throughput"]["bare_loop"]["pictures_per_s"])
        speed.axhline(limit, linestyle="--", color="#c0392b", label="bare loop")
        speed.legend()
        _by_clients(latency, detail["throughput"]["contenders"], "p95_s", "p95 latency, s")
        latency.legend()
    _over_aims(ratios, result)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _by_clients(axes: Axes, contenders: dict[str, Any], column: str, label: str) -> None:
    clients = list(dict.fromkeys(name.rsplit("_", 1)[1] for name in contenders))
    for place, (name, colour) in enumerate(COLOURS.items()):
        heights = [contenders[f"{name}_{count}"][column] for count in clients]
        at = [index + (place - 0.5) * 0.38 for index in range(len(clients))]
        axes.bar_label(axes.bar(at, heights, 0.36, label=name, color=colour), fmt="%.2f")
    axes.set_xticks(range(len(clients)), clients)
    axes.set_xlabel("clients")
    axes.set_ylabel(label)


def _over_aims(axes: Axes, result: dict[str, float]) -> None:
    """How far each figure is on the good side of its aim: 1 is just there, more is better."""
    goodness = {}
    for key, aim in AIMS.items():
        if key in result and aim.at_least is not None:
            goodness[key] = result[key] / aim.at_least
        elif key in result and aim.at_most is not None:
            goodness[key] = min(3.0, aim.at_most / max(result[key], 1e-9))
    names = list(reversed(goodness))
    colours = ["#2e8b57" if goodness[name] >= 1 else "#c0392b" for name in names]
    axes.barh(names, [goodness[name] for name in names], color=colours)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlabel("how far beyond its aim (1: just there; cut at 3)")
