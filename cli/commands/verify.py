"""`trce verify`: which model drew a picture, and whether it was changed since."""

from pathlib import Path
from typing import Annotated

import typer

from cli.answers import Json, answer
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
    as_json: Json = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Say where a picture comes from. Exits with 1 unless it was drawn here and is unchanged."""
    media_type = MEDIA_TYPE.get(picture.suffix.lower())
    if media_type is None:
        raise Invalid(f"{picture}: only {', '.join(MEDIA_TYPE)} files carry a record")
    with Client(url) as client:
        found = client.verify(picture.read_bytes(), media_type)
    words = [f"{found['verdict']}: {found['explanation']}"]
    if origin := found["origin"]:
        erased = ", ".join(concept["name"] for concept in origin["erased"] or [])
        words.append(
            f"model {origin['model']}, certificate {origin['certificate']}, seed "
            f"{origin['seed']}, base {origin['base_model'] or 'none'}, erased: "
            f"{erased or ('nothing' if origin['installed'] else 'the model is gone')}"
        )
    answer(words, found, as_json=as_json)
    if found["verdict"] != "intact":
        raise typer.Exit(1)
