"""Options that several subcommands share."""

from typing import Annotated

import typer

Url = Annotated[str, typer.Option(envvar="TRCE_URL", help="Where the service listens.")]
