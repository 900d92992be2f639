"""`trce erase`: submit an erasure job and watch it, or erase in this process."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.answers import Json, answer
from cli.client import Client
from cli.commands.options import DataDir, Url
from cli.completing import preset_names
from cli.following import follow
from cli.offline import erase_here, erase_into
from cli.specs import parse_spec, read_fields
from core.errors import Invalid
from core.installation import open_registry
from core.manifests import ModelStatus
from core.registrar import Registrar
from core.settings import SHIPPED_MODELS, Settings
from core.signing import Signer


def erase(
    what: Annotated[
        str,
        typer.Argument(
            help="A preset, such as `weapons`, or a YAML or JSON file with a spec.",
            autocompletion=preset_names,
        ),
    ],
    base_model: Annotated[
        str | None,
        typer.Option(help="The model to erase it from; `emoji`, if the spec names none."),
    ] = None,
    promote: Annotated[bool, typer.Option(help="Serve the result at once.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Work in this process, and write the erased model to this folder."),
    ] = None,
    base: Annotated[
        Path | None, typer.Option(help="With --out: the base model's folder or file.")
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option(
            help="With --base FILE of other than the published sizes: a diffusers folder of the "
            "same architecture."
        ),
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(help="With --out: captions to preserve, one a line.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="With --out: keep what captions gave for other runs.")
    ] = None,
    device: Annotated[str, typer.Option(help="In this process: cpu, cuda, cuda:1 ...")] = "cpu",
    processes: Annotated[
        int, typer.Option(help="In this process: others beside it for stage 2, a GPU each.")
    ] = 1,
    data_dir: DataDir = None,
    as_json: Json = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Erase concepts from a base model; the result is a candidate model.

    A spec file holds the fields of POST /v1/erasures; docs/trce.md shows one. Three ways:

    trce erase weapons            through a running service, watched

    trce erase spec.yaml --out D  in this process, into the folder D; no service, no broker

    trce erase spec.yaml --data-dir data   in this process, signed and registered as a candidate
    """
    fields = read_fields(what)
    if base_model is not None:
        fields["base_model"] = base_model
    name = fields.get("base_model", "emoji")
    spec = parse_spec(fields, name, source=what)
    if out is not None:
        if promote or data_dir is not None:
            raise Invalid(
                "--out makes a folder for yourself; --promote and --data-dir are others'"
            )
        base = base or SHIPPED_MODELS / spec.base_model
        made = erase_into(
            *(out, spec, base),
            like=like,
            device=device,
            captions=captions,
            cache=cache,
            processes=processes,
        )
        answer(made.id, made.model_dump(mode="json"), as_json=as_json)
        return
    if base is not None or captions is not None or cache is not None:
        raise Invalid("--base, --captions and --cache belong to --out")
    if data_dir is not None:
        settings = Settings(data_dir=data_dir)
        made = erase_here(spec, settings, device=device, processes=processes)
        if promote:
            registry = open_registry(settings)
            Registrar(registry).set_status(
                made.id, ModelStatus.SERVING, Signer.load(settings.keys_dir)
            )
        answer(made.id, made.model_dump(mode="json"), as_json=as_json)
        return
    with Client(url) as client:
        accepted = client.erase(spec)
        erasure = follow(client, accepted["id"], Console(stderr=True))
        model_id = erasure["erased_model"]
        if promote:
            client.post(f"/v1/models/{model_id}/promotion")
    answer(model_id, erasure, as_json=as_json)
