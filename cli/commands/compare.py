"""`trce compare`: the newest reports of several models, side by side."""

from pathlib import Path
from typing import Annotated

import typer

from cli.answers import Json, answer
from cli.client import Client
from cli.commands.options import Url
from cli.comparing import as_data, differing_terms, html, table
from cli.completing import model_ids
from core.errors import Invalid
from core.reports import Report


def compare(
    models: Annotated[
        list[str],
        typer.Argument(help="Ids of models, or report.json files.", autocompletion=model_ids),
    ],
    out: Annotated[Path | None, typer.Option(help="Also write the table as HTML.")] = None,
    as_json: Json = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """What each model still draws, keeps and withstands.

    Figures on different terms (detector, prompts, steps, seeds) are not comparable; where terms
    differ, that is said.
    """
    reports = [_report(name, url) for name in models]
    differing = differing_terms(reports)
    answer(table(reports), as_data(reports), as_json=as_json)
    for line in differing:
        typer.echo(f"not the same for all: {line}", err=True)
    if out is not None:
        out.write_text(html(reports))
        typer.echo(out, err=True)


def _report(name: str, url: str) -> Report:
    """Raises Invalid, ServiceRefused, ServiceUnreachable, UntrustedModel."""
    if name.endswith(".json"):
        try:
            return Report.parse(Path(name).read_bytes())
        except OSError as error:
            raise Invalid(f"{name} cannot be read: {error}") from error
    with Client(url) as client:
        listed = client.get(f"/v1/models/{name}/reports")["data"]
        if not listed:
            raise Invalid(f"{name} has no report; `trce evaluate {name}` makes one")
        path = f"/v1/models/{name}/reports/{listed[-1]['id']}/report.json"
        return Report.parse(client.file(path))
