"""`trce models`: what there is, and what is served."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich import print_json
from rich.console import Console
from rich.table import Table

from cli.client import Client
from cli.commands.options import Url
from core.importing import import_base
from core.installation import open_registry
from core.settings import Settings
from core.signing import Signer

app = typer.Typer(help="List, inspect, promote, retire and import models.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="A model's id.")]
LOCAL = "http://127.0.0.1:8000"


@app.command("list")
def list_models(
    as_json: Annotated[bool, typer.Option("--json", help="As the API gives it.")] = False,
    url: Url = LOCAL,
) -> None:
    """Every model of the installation."""
    with Client(url) as client:
        listing = client.get("/v1/models")
    if as_json:
        print_json(data=listing)
        return
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
    Console().print(table)


@app.command()
def show(model_id: Id, url: Url = LOCAL) -> None:
    """One model, as its signed manifest describes it."""
    with Client(url) as client:
        print_json(data=client.get(f"/v1/models/{model_id}"))


@app.command()
def promote(model_id: Id, url: Url = LOCAL) -> None:
    """Serve a candidate, or a retired model again."""
    with Client(url) as client:
        client.post(f"/v1/models/{model_id}/promotion")
    typer.echo(f"{model_id} is serving")


@app.command()
def retire(model_id: Id, url: Url = LOCAL) -> None:
    """Serve a model no longer; it can be promoted again."""
    with Client(url) as client:
        client.post(f"/v1/models/{model_id}/retirement")
    typer.echo(f"{model_id} is retired")


@app.command("import")
def import_model(
    folder: Annotated[Path, typer.Argument(help="A diffusers folder.", exists=True)],
    model_id: Annotated[str, typer.Option("--id", help="What to call it.")],
    data_dir: Annotated[Path | None, typer.Option(help="The installation's data folder.")] = None,
) -> None:
    """Copy a base model into the installation and sign its files."""
    settings = Settings(data_dir=data_dir) if data_dir else Settings()
    signer = Signer.load_or_create(settings.keys_dir)
    registry = open_registry(settings)
    manifest = import_base(folder, model_id, registry, signer)
    typer.echo(f"{manifest.id}: {len(manifest.files)} files, {manifest.content_digest[:16]}")
