"""The `trce` command."""

import sys

import typer
from rich.console import Console

from cli.commands import demo, erase, generate, models, up
from core.errors import AppError

app = typer.Typer(
    name="trce",
    help="Text-to-image with safe model hosting: erase concepts, prove it, serve only what was "
    "erased.\n\nStart with [bold]trce up[/bold], or see everything at once with "
    "[bold]trce demo[/bold].",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
app.command("up")(up.up)
app.command("demo")(demo.demo)
app.command("generate")(generate.generate)
app.command("erase")(erase.erase)
app.add_typer(models.app, name="models")


def run() -> None:
    """Errors with a name are for the user: one line, no trace."""
    try:
        app()
    except AppError as error:
        Console(stderr=True).print(f"[red]error:[/red] {error}", highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    run()
