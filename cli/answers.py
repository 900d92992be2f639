"""What a command answers on stdout: words for people, or JSON for programs."""

from typing import Annotated, Any

import typer
from rich import print_json
from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def answer(words: str | list[str] | Text | Table, data: Any, *, as_json: bool) -> None:
    """Print `words` (one, several lines, or a table), or `data` in their place."""
    if as_json:
        print_json(data=data)
    elif isinstance(words, str):
        typer.echo(words)
    elif isinstance(words, list):
        for line in words:
            typer.echo(line)
    else:
        # Lines are as long as they are, tables as wide as the terminal.
        Console(highlight=False, soft_wrap=isinstance(words, Text)).print(words)
