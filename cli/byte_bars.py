"""A bar on stderr while gigabytes are copied, digested or sent."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from core.byte_counting import counting


@contextmanager
def byte_bar(what: str, total_bytes: int, *, as_json: bool) -> Iterator[None]:
    """Within, a bar grows with each byte of the work; none for programs, nor where nobody looks.

    Args:
        total_bytes: how many are expected to pass.
        as_json: the command answers a program.
    """
    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
    )
    hidden = as_json or not console.is_terminal
    with Progress(*columns, console=console, disable=hidden) as bars:
        bar = bars.add_task(what, total=total_bytes)
        with counting(lambda count: bars.advance(bar, count)):
            yield


def size_of(places: Iterable[Path]) -> int:
    """Bytes of files, and of all files in folders; what is not there counts nothing."""
    total = 0
    for place in places:
        for path in place.rglob("*") if place.is_dir() else [place]:
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
    return total
