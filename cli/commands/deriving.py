"""`trce models merge`, `add` and `remove`: models made from others; no prompt is read again."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cli.answers import Json, answer
from cli.client import Client
from cli.commands.options import LOCAL, DataDir, ModelId, Url
from cli.completing import model_ids
from cli.following import follow
from cli.offline import base_of, erase_here
from cli.specs import parse_spec, read_fields, read_steering
from core.errors import Invalid
from core.installation import open_registry
from core.settings import Settings

NewId = Annotated[
    str | None, typer.Option("--new-id", help="What to call the result; with --data-dir.")
]
Preserve = Annotated[
    float | None,
    typer.Option(help="η, the weight of what must keep its meaning; see docs/trce.md."),
]
Ridge = Annotated[
    float | None,
    typer.Option(help="ρ, the weight that pulls the edit towards none; see docs/trce.md."),
]
Steering = Annotated[
    str | None,
    typer.Option(
        metavar="PRESET|JSON",
        help="Train stage 2 anew, with the settings of this name (published-sd1) or of this JSON "
        "object ({} is the defaults); needed where a model was trained by stage 2.",
    ),
]
Strength = Annotated[float | None, typer.Option(help="1 erases fully, 0.5 half, up to 2.")]


def merge(
    models: Annotated[
        list[str],
        typer.Argument(help="Ids of erased models of one base.", autocompletion=model_ids),
    ],
    model_id: NewId = None,
    preserve: Preserve = None,
    ridge: Ridge = None,
    strength: Strength = None,
    steering: Steering = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    url: Url = LOCAL,
) -> None:
    """Make a candidate that erases what all of these models erase.

    It is solved anew from the statistics kept with them, without reading a prompt again: exactly
    what erasing everything at once gives, if that protects the same neighbours. A merge protects
    those that were found for each of its models; one erasure finds its own. One model and another
    --strength, --preserve or --ridge makes the same erasure weaker or stronger. Weights that stage
    2 trained, it trained for exactly the concepts of its model: with --steering it trains anew for
    those of all.
    """
    options = _textual(preserve, ridge, strength) | _steering(steering)
    _derive({"merge": models, **options}, model_id, data_dir, url, as_json=as_json)


def add(
    model_id: ModelId,
    what: Annotated[
        list[str], typer.Argument(help="Presets, or a YAML or JSON file with `concepts`, or both.")
    ],
    instead_of: Annotated[
        list[str] | None,
        typer.Option("--instead-of", help="A concept that the new ones take the place of."),
    ] = None,
    new_id: NewId = None,
    steering: Steering = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    url: Url = LOCAL,
) -> None:
    """Make a candidate that erases more concepts than this model; only those are read.

    A model that stage 2 has trained needs --steering, to train anew for all its concepts.
    """
    fields = {"merge": [model_id], "remove": instead_of or [], **read_fields(what)}
    fields |= _steering(steering)
    _derive(fields, new_id, data_dir, url, as_json=as_json)


def remove(
    model_id: ModelId,
    concepts: Annotated[list[str], typer.Argument(help="Names of concepts to draw again.")],
    new_id: NewId = None,
    steering: Steering = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    url: Url = LOCAL,
) -> None:
    """Make a candidate that erases fewer concepts than this model; no prompt is read.

    The neighbours that were found for what is taken out go with it, and none are found in their
    place: beside those it is as if that had never been in. Without its last concept a model is its
    base again, bit for bit, and served only where bases are. A model that stage 2 has trained
    needs --steering for any other, to train anew for those that are left.
    """
    fields = {"merge": [model_id], "remove": concepts, **_steering(steering)}
    _derive(fields, new_id, data_dir, url, as_json=as_json)


def _textual(
    preserve: float | None, ridge: float | None, strength: float | None
) -> dict[str, Any]:
    given = {"preserve": preserve, "ridge": ridge, "strength": strength}
    given = {name: value for name, value in given.items() if value is not None}
    return {"textual": given} if given else {}


def _steering(given: str | None) -> dict[str, Any]:
    return {} if given is None else {"steering": read_steering(given)}


def _derive(
    fields: dict[str, Any],
    new_id: str | None,
    data_dir: Path | None,
    url: str,
    *,
    as_json: bool,
) -> None:
    """Over HTTP, or with `data_dir` in this process, without service or broker."""
    first = fields["merge"][0]
    if data_dir is not None:
        settings = Settings(data_dir=data_dir)
        base = base_of(open_registry(settings).get(first))
        made = erase_here(parse_spec(fields, base), settings, model_id=new_id)
        answer(made.id, made.model_dump(mode="json"), as_json=as_json)
        return
    if new_id is not None:
        raise Invalid("--new-id is for --data-dir; the service chooses ids itself")
    with Client(url) as client:
        model = client.get(f"/v1/models/{first}")
        base = (model["erased"] or {"base_model": first})["base_model"]
        accepted = client.erase(parse_spec(fields, base))
        job = follow(client, accepted["id"], Console(stderr=True))
    answer(job["erased_model"], job, as_json=as_json)
