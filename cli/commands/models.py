"""`trce models`: what there is, and what is served."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from cli.answers import Json, answer
from cli.client import Client, Resource
from cli.commands.options import LOCAL, ModelId, Url
from cli.completing import model_ids
from core.errors import Invalid

app = typer.Typer(
    help="List, inspect, promote, retire, import, merge and change models; point `default`.",
    no_args_is_help=True,
)


@app.command("list")
def list_models(as_json: Json = False, url: Url = LOCAL) -> None:
    """Every model of the installation."""
    with Client(url) as client:
        listing = client.get("/v1/models")
    table = Table("model", "kind", "status", "served", "erased", "made")
    for model in listing["data"]:
        table.add_row(
            model["id"],
            model["kind"],
            model["status"],
            _served(model),
            ", ".join(concept["name"] for concept in (model["erased"] or {}).get("concepts", [])),
            datetime.fromtimestamp(model["created"], UTC).strftime("%Y-%m-%d %H:%M"),
        )
    answer(table, listing, as_json=as_json)


@app.command()
def show(model_id: ModelId, as_json: Json = True, url: Url = LOCAL) -> None:
    """One model, as its signed manifest describes it, as JSON."""
    with Client(url) as client:
        model = client.get(f"/v1/models/{model_id}")
    answer("", model, as_json=as_json)


Reason = Annotated[str, typer.Option(help="Why; goes into the audit trail.")]


@app.command()
def promote(
    model_id: ModelId,
    reason: Reason = "",
    override: Annotated[
        bool, typer.Option("--override", help="Whatever it lacks; needs a --reason.")
    ] = False,
    default: Annotated[
        bool, typer.Option("--default", help="Requests that name no model get it, too.")
    ] = False,
    as_json: Json = False,
    url: Url = LOCAL,
) -> None:
    """Serve a candidate, or a retired model again.

    Refused, with what is missing, while its reports do not show what its `promote_if` or this
    installation demands; `trce evaluate` makes one.
    """
    asked = {"override": override, "default": default}
    order = {"reason": reason, **{name: True for name, wanted in asked.items() if wanted}}
    with Client(url) as client:
        model = client.post(f"/v1/models/{model_id}/promotion", order)
    means = ", and is what `default` means" if model["is_default"] else ""
    answer(f"{model['id']} is serving{means}", model, as_json=as_json)


@app.command()
def retire(
    model_id: ModelId, reason: Reason = "", as_json: Json = False, url: Url = LOCAL
) -> None:
    """Serve a model no longer; it can be promoted again."""
    with Client(url) as client:
        model = client.post(f"/v1/models/{model_id}/retirement", {"reason": reason})
    answer(f"{model['id']} is retired", model, as_json=as_json)


@app.command("default")
def point_default(
    model_id: Annotated[
        str | None,
        typer.Argument(help="The model to point it to.", autocompletion=model_ids),
    ] = None,
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Point it to what it meant before.")
    ] = False,
    reason: Reason = "",
    as_json: Json = False,
    url: Url = LOCAL,
) -> None:
    """Say which model a request gets that names none, or point that elsewhere.

    The model must be served. Jobs that were accepted before are drawn with the one of then.
    """
    if rollback and model_id is not None:
        raise Invalid("name a model, or give --rollback, not both")
    with Client(url) as client:
        if rollback:
            alias = client.post("/v1/aliases/default/rollback", {"reason": reason})
        elif model_id is not None:
            alias = client.put("/v1/aliases/default", {"model": model_id, "reason": reason})
        else:
            (alias,) = [one for one in client.get("/v1/aliases")["data"] if one["id"] == "default"]
    lines = [f"default means {alias['model']}"]
    if alias["not_served_because"]:
        lines.append(f"not served: {alias['not_served_because']}")
    if alias["former"]:
        lines.append(f"before: {', '.join(alias['former'])}")
    answer(lines, alias, as_json=as_json)


def _served(model: Resource) -> str:
    return ("yes, by default" if model["is_default"] else "yes") if model["served"] else "no"
