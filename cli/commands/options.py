"""Options that several subcommands share."""

from pathlib import Path
from typing import Annotated

import typer

from cli.completing import model_ids

Url = Annotated[str, typer.Option(envvar="TRCE_URL", help="Where the service listens.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Work on this installation's data folder, without service or broker."),
]
ModelId = Annotated[str, typer.Argument(help="A model's id.", autocompletion=model_ids)]
LOCAL = "http://127.0.0.1:8000"
