"""How a run tells its progress and its failure: bars for people, JSON lines for programs."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from core.errors import AppError
from core.progress import Progress, Reporter
from core.samples import Samples


class Advance(Protocol):
    def __call__(self, units: int, figures: Mapping[str, float] = {}, /) -> None: ...


def counter(report: Reporter, stage: str, total: int) -> Advance:
    """Report the start of a stage; call the result with the units done since its last call."""
    done = 0

    def advance(units: int, figures: Mapping[str, float] = {}) -> None:
        nonlocal done
        done += units
        report(Progress(stage=stage, done=done, total=total, figures=dict(figures)))

    advance(0)
    return advance


def quieten_libraries() -> None:
    """No progress bars beside ours."""
    from diffusers.utils import logging as diffusers_logging  # noqa: PLC0415
    from transformers.utils import logging as transformers_logging  # noqa: PLC0415

    transformers_logging.disable_progress_bar()
    diffusers_logging.disable_progress_bar()


def print_json(progress: Progress) -> None:
    """One line on stdout, at once."""
    _print_line(progress.model_dump_json())


def print_json_samples(samples: Samples) -> None:
    _print_line(samples.model_dump_json())


def print_json_error(error: AppError) -> None:
    document = {"error": {"type": type(error).__name__, "detail": error.detail}}
    _print_line(json.dumps(document))


@contextmanager
def bars() -> Iterator[Reporter]:
    """A bar for each stage, on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Bars(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as live:
        tasks: dict[str, TaskID] = {}

        def report(progress: Progress) -> None:
            if progress.stage not in tasks:
                tasks[progress.stage] = live.add_task(progress.stage, total=progress.total)
            live.update(
                tasks[progress.stage],
                completed=progress.done,
                total=progress.total,
                description=" ".join(
                    [progress.stage, *(f"{k} {v:.3g}" for k, v in progress.figures.items())]
                ),
            )

        yield report


def _print_line(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
