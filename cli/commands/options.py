"""Options that several subcommands share."""

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[str, typer.Option(envvar="TRCE_URL", help="Where the service listens.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Work on this installation's data folder, without service or broker."),
]
