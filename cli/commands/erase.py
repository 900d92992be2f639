"""`trce erase`: submit an erasure job and watch it."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console

from cli.client import Client
from cli.commands.options import Url
from cli.explaining import explain
from cli.following import follow
from core.errors import Invalid
from core.specs import ErasureSpec


def erase(
    what: Annotated[
        str,
        typer.Argument(help="A preset, such as `weapons`, or a YAML or JSON file with a spec."),
    ],
    base_model: Annotated[str, typer.Option(help="The model to erase it from.")] = "emoji",
    promote: Annotated[bool, typer.Option(help="Serve the result at once.")] = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Erase concepts from a base model; the result is a candidate model.

    A spec file holds the fields of POST /v1/erasures; see /docs of a running service.
    """
    spec = read_spec(what, base_model)
    with Client(url) as client:
        accepted = client.erase(spec)
        erasure = follow(client, accepted["id"], Console(stderr=True))
        model_id = erasure["erased_model"]
        if promote:
            client.post(f"/v1/models/{model_id}/promotion")
    typer.echo(model_id)


def read_spec(what: str, base_model: str) -> ErasureSpec:
    """Raises Invalid."""
    fields: Any = {"preset": what}
    if Path(what).suffix in {".yaml", ".yml", ".json"}:
        try:
            fields = yaml.safe_load(Path(what).read_text())
        except (OSError, yaml.YAMLError) as error:
            raise Invalid(f"{what} cannot be read: {error}") from error
    try:
        return ErasureSpec.model_validate({"base_model": base_model} | dict(fields))
    except ValidationError as error:
        raise Invalid(f"{what}: {'; '.join(explain(error))}") from error
    except (TypeError, ValueError) as error:
        raise Invalid(f"{what} does not hold the fields of an erasure") from error
