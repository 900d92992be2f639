"""How far a long job has come, from its history: the stages it went through, and its losses."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import AppError
from core.job_news import JobNews
from core.jobs import JobState
from core.progress import Progress
from core.registry import ModelRegistry
from service.web.curves import Curve, curves


@dataclass(frozen=True)
class Watched:
    stages: list[Progress]
    """How far each stage came, in their order."""
    curves: list[Curve]


def watched(news: JobNews, job_id: str) -> Watched:
    """Of the present attempt; of a long one, the history keeps the latest part only."""
    stages: dict[str, Progress] = {}
    losses: dict[str, list[float]] = {}
    for _, told in news.events(job_id):
        if told.get("state") == JobState.RUNNING:
            stages, losses = {}, {}
        if "progress" not in told:
            continue
        progress = Progress.model_validate_json(told["progress"])
        stages[progress.stage] = progress
        for name, value in progress.figures.items():
            losses.setdefault(name, []).append(value)
    return Watched(list(stages.values()), curves(losses))


def trained(registry: ModelRegistry, model_id: str) -> list[Curve]:
    """The losses that a model's manifest tells of; none for one that no training made."""
    try:
        edit = registry.get(model_id).edit
    except AppError:
        return []  # the model was taken away since
    if edit is None or edit.loss_curve is None:
        return []
    series: dict[str, Sequence[float]] = edit.loss_curve.model_dump(exclude={"every"})
    return curves(series)
