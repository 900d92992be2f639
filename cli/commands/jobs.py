"""`trce jobs`: those that used up their attempts, and another try for them."""

from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Table

from cli.answers import Json, answer
from cli.client import Client, Resource
from cli.commands.options import Url
from core.errors import JobNotFound

app = typer.Typer(help="Jobs that used up their attempts.", no_args_is_help=True)


@app.command("dead")
def list_dead(
    as_json: Json = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """List the jobs that used up their attempts, the latest first."""
    with Client(url) as client:
        dead = _dead(client)
    table = Table("id", "kind", "tenant", "ended (UTC)", "why")
    for one in dead:
        when = datetime.fromtimestamp(one["finished_at"], UTC).strftime("%Y-%m-%d %H:%M:%S")
        table.add_row(one["id"], one["kind"], one["tenant"], when, one["reason"])
    answer(table, dead, as_json=as_json)


@app.command("retry")
def retry(
    job_id: Annotated[str, typer.Argument(help="As `trce jobs dead` lists it, or its beginning.")],
    as_json: Json = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Try one of them again, with as many attempts as it had."""
    with Client(url) as client:
        found = [one for one in _dead(client) if one["id"].startswith(job_id)]
        if len(found) != 1:
            raise JobNotFound(
                f"{len(found)} dead letters have an id that begins with {job_id!r}; "
                "`trce jobs dead` lists them"
            )
        job = client.post(found[0]["retry"])
    answer(f"{job['id']} is {job['state']}", job, as_json=as_json)


def _dead(client: Client) -> list[Resource]:
    return list(client.get("/v1/dead-letters")["data"])
