"""`trce models`: what there is, and what is served."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.answers import Json, answer
from cli.client import Client
from cli.commands.options import DataDir, Url
from cli.completing import model_ids
from cli.exporting import Format
from cli.exporting import export as run_export
from cli.following import follow
from cli.importing import Prediction, import_file
from cli.offline import base_of, erase_here
from cli.specs import parse_spec, read_fields
from core.errors import Invalid
from core.importing import import_base
from core.installation import open_registry
from core.registrar import Registrar
from core.settings import Settings
from core.signing import Signer

app = typer.Typer(
    help="List, inspect, promote, retire, import, merge and change models.", no_args_is_help=True
)

Id = Annotated[str, typer.Argument(help="A model's id.", autocompletion=model_ids)]
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
Strength = Annotated[float | None, typer.Option(help="1 erases fully, 0.5 half, up to 2.")]
LOCAL = "http://127.0.0.1:8000"


@app.command()
def push(as_json: Json = False) -> None:
    """Put every model of this host into the bucket of TRCE_S3_MODELS, where it is not yet."""
    pushed = list(Registrar(open_registry(Settings())).push_all())
    answer([f"{model_id} is in the bucket" for model_id in pushed], pushed, as_json=as_json)


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
def show(model_id: Id, as_json: Json = True, url: Url = LOCAL) -> None:
    """One model, as its signed manifest describes it, as JSON."""
    with Client(url) as client:
        model = client.get(f"/v1/models/{model_id}")
    answer("", model, as_json=as_json)


Reason = Annotated[str, typer.Option(help="Why; goes into the audit trail.")]


@app.command()
def promote(
    model_id: Id,
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
def retire(model_id: Id, reason: Reason = "", as_json: Json = False, url: Url = LOCAL) -> None:
    """Serve a model no longer; it can be promoted again."""
    with Client(url) as client:
        model = client.post(f"/v1/models/{model_id}/retirement", {"reason": reason})
    answer(f"{model['id']} is retired", model, as_json=as_json)


@app.command()
def merge(
    models: Annotated[
        list[str],
        typer.Argument(help="Ids of erased models of one base.", autocompletion=model_ids),
    ],
    model_id: NewId = None,
    preserve: Preserve = None,
    ridge: Ridge = None,
    strength: Strength = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    url: Url = LOCAL,
) -> None:
    """Make a candidate that erases what all of these models erase.

    It is solved anew from the statistics kept with them: exactly what erasing everything at once
    gives, without reading a prompt again. One model and another --strength, --preserve or --ridge
    makes the same erasure weaker or stronger. Weights trained by stage 2 cannot be merged.
    """
    options = _textual(preserve, ridge, strength)
    _derive({"merge": models, **options}, model_id, data_dir, url, as_json=as_json)


@app.command()
def add(
    model_id: Id,
    what: Annotated[str, typer.Argument(help="A preset, or a YAML or JSON file with `concepts`.")],
    instead_of: Annotated[
        list[str] | None,
        typer.Option("--instead-of", help="A concept that the new ones take the place of."),
    ] = None,
    new_id: NewId = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    url: Url = LOCAL,
) -> None:
    """Make a candidate that erases more concepts than this model; only those are read."""
    fields = {"merge": [model_id], "remove": instead_of or [], **read_fields(what)}
    _derive(fields, new_id, data_dir, url, as_json=as_json)


@app.command()
def remove(
    model_id: Id,
    concepts: Annotated[list[str], typer.Argument(help="Names of concepts to draw again.")],
    new_id: NewId = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    url: Url = LOCAL,
) -> None:
    """Make a candidate that erases fewer concepts than this model, as if they had never been in.

    Without its last concept a model is its base again, bit for bit, and served only where bases
    are.
    """
    _derive({"merge": [model_id], "remove": concepts}, new_id, data_dir, url, as_json=as_json)


@app.command()
def export(
    model_id: Id,
    out: Annotated[Path, typer.Option(help="A folder for diffusers, else a .safetensors file.")],
    form: Annotated[Format, typer.Option("--format", help="For which programs.")],
    rank: Annotated[int | None, typer.Option(min=1, help="Of a LoRA, at most.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Write an erased model for other programs, from the installation's data folder.

    diffusers: a unet/ folder. single-file: the whole model in the original layout, for A1111 and
    ComfyUI. lora: for these and diffusers, on top of the base; its rank and error are stated.
    """
    registry = open_registry(Settings(data_dir=data_dir) if data_dir else Settings())
    made = run_export(registry, registry.resolve(model_id), form, out, rank=rank)
    data = {"path": str(made.path), "remark": made.remark}
    answer(f"{made.path}: {made.remark}", data, as_json=as_json)


@app.command("import")
def import_model(
    source: Annotated[
        Path, typer.Argument(help="A diffusers folder, or one .safetensors file.", exists=True)
    ],
    model_id: Annotated[str, typer.Option("--id", help="What to call it.")],
    like: Annotated[
        str | None,
        typer.Option(
            help="For one file of other than the published sizes: a model's id or a diffusers "
            "folder of the same architecture, for tokenizer and configs."
        ),
    ] = None,
    prediction: Annotated[
        Prediction | None,
        typer.Option(help="For one file of an SD 2.x that does not say what its UNet predicts."),
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Copy a base model into the installation and sign its files."""
    settings = Settings(data_dir=data_dir) if data_dir else Settings()
    signer = Signer.load_or_create(settings.keys_dir)
    registry = open_registry(settings)
    if source.is_dir():
        manifest = import_base(source, model_id, registry, signer)
    else:
        manifest = import_file(
            source, model_id, registry, signer, like=like, prediction=prediction
        )
    words = f"{manifest.id}: {len(manifest.files)} files, {manifest.content_digest[:16]}"
    answer(words, manifest.model_dump(mode="json"), as_json=as_json)


def _textual(
    preserve: float | None, ridge: float | None, strength: float | None
) -> dict[str, Any]:
    given = {"preserve": preserve, "ridge": ridge, "strength": strength}
    given = {name: value for name, value in given.items() if value is not None}
    return {"textual": given} if given else {}


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
