"""`trce audit`: what operators did, and whether the record of it is whole."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.answers import Json, answer
from cli.client import Client
from cli.commands.options import Url

PAGE = 100


def audit(
    limit: Annotated[int, typer.Option(help="How many entries to show; 0 for all.")] = 20,
    as_json: Json = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Show who did what and why, newest first. Exits with 1 when an entry was tampered with."""
    entries, broken = read_trail(url, limit)
    table = Table("#", "when (UTC)", "who", "did", "to", "outcome", "why")
    for one in entries:
        when = datetime.fromtimestamp(one["at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(
            *(str(one["number"]), when, one["actor"], one["action"]),
            *(one["subject"], one["outcome"], one["reason"]),
        )
    answer(table, {"entries": entries, "broken_at": broken}, as_json=as_json)
    if broken is not None:
        typer.echo(f"entry {broken} is not as it was written", err=True)
        raise typer.Exit(1)


def read_trail(url: str, limit: int) -> tuple[list[dict[str, Any]], int | None]:
    """Up to `limit` entries (0: all), and the newest that does not check out."""
    entries: list[dict[str, Any]] = []
    broken: int | None = None
    with Client(url) as client:
        more = True
        while more and (not limit or len(entries) < limit):
            size = min(PAGE, limit - len(entries)) if limit else PAGE
            after = f"&after={entries[-1]['number']}" if entries else ""
            page = client.get(f"/v1/audit?limit={size}{after}")
            entries += page["data"]
            broken = page["broken_at"] if broken is None else broken
            more = page["has_more"]
    return entries, broken
