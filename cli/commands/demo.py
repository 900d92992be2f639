"""`trce demo`: the main job of the service, shown."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.answers import Json, answer


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("build/demo"),
    seed: Annotated[int, typer.Option(help="Chooses the prompts and starts the noise.")] = 0,
    as_json: Json = False,
) -> None:
    """Erase weapons from the shipped model and show what that changed.

    Starts a stack of its own, draws with the base model, runs an erasure job, promotes the
    result, draws the same prompts again. Leaves gallery.png, report.html and summary.json. Exits
    with 1 when the erased model still draws weapons, or has forgotten too much else.
    """
    # Not before: it imports torch, which every other subcommand does without.
    from cli.demo.main_job import run_demo  # noqa: PLC0415

    # Programs read stdout, people watch.
    console = Console(highlight=False, stderr=as_json)
    figures = run_demo(out, seed=seed, console=console)
    if as_json:
        answer("", asdict(figures), as_json=True)
    if not figures.good:
        console.print("[red]not good enough:[/red] weapons must fall to 10 %, others keep 90 %")
        raise typer.Exit(1)
