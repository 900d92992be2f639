"""`trce models`: what there is, and what is served."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from cli.answers import Json, answer
from cli.client import Client
from cli.commands.options import LOCAL, ModelId, Url

app = typer.Typer(
    help="List, inspect, promote, retire, import, merge and change models.", no_args_is_help=True
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
            "yes" if model["served"] else "no",
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
    as_json: Json = False,
    url: Url = LOCAL,
) -> None:
    """Serve a candidate, or a retired model again.

    Refused, with what is missing, while its reports do not show what its `promote_if` or this
    installation demands; `trce evaluate` makes one.
    """
    order = {"reason": reason, **({"override": True} if override else {})}
    with Client(url) as client:
        model = client.post(f"/v1/models/{model_id}/promotion", order)
    answer(f"{model['id']} is serving", model, as_json=as_json)


@app.command()
def retire(
    model_id: ModelId, reason: Reason = "", as_json: Json = False, url: Url = LOCAL
) -> None:
    """Serve a model no longer; it can be promoted again."""
    with Client(url) as client:
        model = client.post(f"/v1/models/{model_id}/retirement", {"reason": reason})
    answer(f"{model['id']} is retired", model, as_json=as_json)
