"""`trce models import`, `export` and `push`: models from elsewhere, for elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

from cli.answers import Json, answer
from cli.byte_bars import byte_bar, size_of
from cli.commands.options import DataDir, ModelId
from cli.exporting import Format
from cli.exporting import export as run_export
from cli.importing import Prediction, import_file
from core.importing import import_base
from core.installation import open_registry
from core.registrar import Registrar
from core.settings import Settings
from core.signing import Signer


def push(
    again: Annotated[
        list[str] | None,
        typer.Option(
            help="A model whose files are sent though the bucket has them: one is spoilt there. "
            "They are checked here first."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Put every model of this host into the bucket of TRCE_S3_MODELS, where it is not yet."""
    registry = open_registry(Settings())
    models = [registry.path(manifest.id) for manifest in registry.all()]
    with byte_bar("pushing", size_of(models), as_json=as_json):
        pushed = Registrar(registry).push_all(again=again or ())
    answer([f"{model_id} is in the bucket" for model_id in pushed], pushed, as_json=as_json)


def export(
    model_id: ModelId,
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
    model_id = registry.resolve(model_id)
    checked = [registry.path(model_id)]
    edit = registry.get(model_id).edit
    if edit is not None and form is not Format.DIFFUSERS:
        checked.append(registry.path(edit.base_model))
    with byte_bar(f"exporting {model_id}", size_of(checked), as_json=as_json):
        made = run_export(registry, model_id, form, out, rank=rank)
    data = {"path": str(made.path), "remark": made.remark}
    answer(f"{made.path}: {made.remark}", data, as_json=as_json)


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
    # Copied once, and digested once.
    with byte_bar(f"importing {model_id}", 2 * size_of([source]), as_json=as_json):
        if source.is_dir():
            manifest = import_base(source, model_id, registry, signer)
        else:
            manifest = import_file(
                source, model_id, registry, signer, like=like, prediction=prediction
            )
    words = f"{manifest.id}: {len(manifest.files)} files, {manifest.content_digest[:16]}"
    answer(words, manifest.model_dump(mode="json"), as_json=as_json)
