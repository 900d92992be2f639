"""`trce policies`: what tenants may do. Speaks to a running service, with an admin's key."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from pydantic import ValidationError
from rich.table import Table

from cli.answers import Json, answer
from cli.client import Client
from cli.commands.options import Url
from cli.explaining import explain
from core.errors import Invalid
from core.policies import DEFAULT, Policy

app = typer.Typer(help="Show, set and remove the policies of tenants.", no_args_is_help=True)

LOCAL = "http://127.0.0.1:8000"
Tenant = Annotated[str, typer.Argument(help=f"A tenant, or `{DEFAULT}` for all others.")]


@app.command("list")
def list_policies(as_json: Json = False, url: Url = LOCAL) -> None:
    """Every policy that is written."""
    with Client(url) as client:
        policies = client.get("/v1/policies")["data"]
    table = Table("tenant", "id", "models", "detectors", "share")
    for one in policies:
        policy = one["policy"]
        detectors = ", ".join(rule["detector"] for rule in policy["detectors"])
        models = ", ".join(policy["models"])
        table.add_row(one["tenant"], one["id"], models, detectors, str(policy["share"]))
    answer(table, policies, as_json=as_json)


@app.command()
def show(tenant: Tenant, as_json: Json = True, url: Url = LOCAL) -> None:
    """One policy, in full, as JSON."""
    with Client(url) as client:
        policy = client.get(f"/v1/policies/{tenant}")
    answer("", policy, as_json=as_json)


@app.command("set")
def set_policy(
    tenant: Tenant,
    file: Annotated[Path, typer.Argument(help="YAML or JSON, as in docs/operations.md.")],
    as_json: Json = False,
    url: Url = LOCAL,
) -> None:
    """Write or replace a policy; it holds from then on."""
    policy = read_policy(file)
    with Client(url) as client:
        written = client.put(f"/v1/policies/{tenant}", policy.model_dump(mode="json"))
    answer(written["id"], written, as_json=as_json)


@app.command()
def remove(tenant: Tenant, as_json: Json = False, url: Url = LOCAL) -> None:
    """Have a tenant go by the default policy again."""
    with Client(url) as client:
        client.discard(f"/v1/policies/{tenant}")
    words = f"{tenant} goes by the policy {DEFAULT}"
    answer(words, {"tenant": tenant, "policy": DEFAULT}, as_json=as_json)


def read_policy(file: Path) -> Policy:
    """Raises Invalid."""
    try:
        fields: Any = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Invalid(f"{file} cannot be read: {error}") from error
    try:
        return Policy.model_validate(fields)
    except ValidationError as error:
        raise Invalid(f"{file}: {'; '.join(explain(error))}") from error
