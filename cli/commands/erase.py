"""`trce erase`: submit an erasure job and watch it, or erase in this process."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cli.answers import Json, answer
from cli.auditing import recorded
from cli.client import Client, ServiceUnreachable
from cli.commands.options import DataDir, Url
from cli.completing import preset_names
from cli.following import follow
from cli.offline import erase_here, erase_into, name_of_base
from cli.running import Running
from cli.specs import parse_spec, read_fields
from core import erasure_flags as flags
from core.errors import AppError, Invalid
from core.installation import open_registry
from core.manifests import ModelStatus
from core.registrar import Registrar
from core.settings import SHIPPED_MODELS, Settings
from core.signing import Signer
from core.specs import ErasureSpec


def erase(
    what: Annotated[
        list[str],
        typer.Argument(
            help="Presets, such as `weapons`, or a YAML or JSON file with a spec, or both.",
            autocompletion=preset_names,
        ),
    ],
    base_model: Annotated[
        str | None,
        typer.Option(
            help="The model to erase it from; if the spec names none, `emoji`, or as --base is "
            "called."
        ),
    ] = None,
    promote: Annotated[bool, typer.Option(help="Serve the result at once.")] = False,
    default: Annotated[
        bool,
        typer.Option("--default", help="With --promote: requests that name no model get it, too."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Work in this process, and write the erased model to this folder."),
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="With --out: the base model's folder or file.")
    ] = None,
    like: Annotated[Path | None, typer.Option(help=f"With --base: {flags.LIKE}.")] = None,
    captions: Annotated[Path | None, typer.Option(help=f"With --out: {flags.CAPTIONS}.")] = None,
    cache: Annotated[Path | None, typer.Option(help=f"With --out: {flags.CACHE}.")] = None,
    merge: Annotated[list[Path] | None, typer.Option(help=f"With --out: {flags.MERGE}.")] = None,
    work: Annotated[Path | None, typer.Option(help=f"In this process: {flags.WORK}.")] = None,
    device: Annotated[str, typer.Option(help=f"In this process: {flags.DEVICE}")] = "cpu",
    processes: Annotated[
        int, typer.Option(min=1, help=f"In this process: {flags.PROCESSES}.")
    ] = 1,
    threads: Annotated[
        int | None, typer.Option(min=1, help=f"In this process: {flags.THREADS}.")
    ] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Erase concepts from a base model; the result is a candidate model.

    A spec file holds the fields of POST /v1/erasures; docs/trce.md shows one. Three ways:

    trce erase weapons drugs      through a running service, watched

    trce erase spec.yaml --out D  in this process, into the folder D; no service, no broker

    trce erase spec.yaml --data-dir data   in this process, signed and registered as a candidate
    """
    if default and (not promote or data_dir is not None):
        raise Invalid(
            "--default goes with --promote, through a running service, which knows what it means"
        )
    fields = read_fields(what)
    name = base_model or fields.get("base_model") or name_of_base(base)
    spec = parse_spec(fields | {"base_model": name}, name, source=" ".join(what))
    running = Running(device, processes, threads, work)
    if out is not None:
        if promote or data_dir is not None:
            raise Invalid(
                "--out makes a folder for yourself; --promote and --data-dir are others'"
            )
        base = base or SHIPPED_MODELS / spec.base_model
        made = erase_into(
            *(out, spec, base),
            like=like,
            captions=captions,
            cache=cache,
            merge=merge or [],
            running=running,
        )
        answer(made.id, made.model_dump(mode="json"), as_json=as_json)
        return
    if any((base, like, captions, cache, merge)):
        raise Invalid("--base, --like, --captions, --cache and --merge belong to --out")
    if data_dir is not None:
        settings = Settings(data_dir=data_dir)
        made = erase_here(spec, settings, running=running)
        if promote:
            _promote(made.id, settings)
        answer(made.id, made.model_dump(mode="json"), as_json=as_json)
        return
    if running != Running():
        raise Invalid(
            "--device, --processes, --threads and --work are for an erasure in this process: give "
            "--out or --data-dir with them; a service's workers have their own settings"
        )
    with Client(url) as client:
        accepted = _submit(client, spec)
        erasure = follow(client, accepted["id"], Console(stderr=True))
        model_id = erasure["erased_model"]
        if promote:
            order = {"default": True} if default else None
            client.post(f"/v1/models/{model_id}/promotion", order)
    answer(model_id, erasure, as_json=as_json)


def _submit(client: Client, spec: ErasureSpec) -> dict[str, Any]:
    """Raises AppError; where no service answers, with the ways to do without one."""
    try:
        return client.erase(spec)
    except ServiceUnreachable as error:
        raise ServiceUnreachable(
            f"{error}; --out or --data-dir erase without one, in this process"
        ) from error


def _promote(model_id: str, settings: Settings) -> None:
    """Raises AppError, and says before that the model is there all the same."""
    try:
        with recorded(settings, "model.promotion", model_id):
            signer = Signer.load(settings.keys_dir)
            Registrar(open_registry(settings)).set_status(model_id, ModelStatus.SERVING, signer)
    except AppError:
        typer.echo(f"{model_id} is made, and a candidate: it was not promoted", err=True)
        raise
