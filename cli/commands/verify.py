"""`trce verify`: which model drew a picture, and whether it was changed since."""

from pathlib import Path
from typing import Annotated

import typer
from rich import print_json

from cli.client import Client
from cli.commands.options import Url
from core.errors import Invalid

MEDIA_TYPE = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
}


def verify(
    picture: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP file.", exists=True)],
    as_json: Annotated[bool, typer.Option("--json", help="As the API gives it.")] = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Say where a picture comes from. Exits with 1 unless it was drawn here and is unchanged."""
    media_type = MEDIA_TYPE.get(picture.suffix.lower())
    if media_type is None:
        raise Invalid(f"{picture}: only {', '.join(MEDIA_TYPE)} files carry a record")
    with Client(url) as client:
        found = client.verify(picture.read_bytes(), media_type)
    if as_json:
        print_json(data=found)
    else:
        typer.echo(f"{found['verdict']}: {found['explanation']}")
        if origin := found["origin"]:
            erased = ", ".join(concept["name"] for concept in origin["erased"] or [])
            typer.echo(
                f"model {origin['model']}, certificate {origin['certificate']}, seed "
                f"{origin['seed']}, base {origin['base_model'] or 'none'}, erased: "
                f"{erased or ('nothing' if origin['installed'] else 'the model is gone')}"
            )
    if found["verdict"] != "intact":
        raise typer.Exit(1)
