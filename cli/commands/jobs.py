"""`trce jobs`: what waits and runs, and an end for it; what failed for good, and another try."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.table import Column, Table

from cli.answers import Json, answer
from cli.client import Client, Resource, ScopeLacking
from cli.commands.options import Url
from core.errors import JobNotFound

app = typer.Typer(help="What waits, runs and failed.", no_args_is_help=True)
KINDS = ("generations", "erasures", "evaluations")
OPEN = ("queued", "running")
MOST = 100
"""Jobs of a kind that the service lists at once."""


@app.command("list")
def list_jobs(
    ended: Annotated[bool, typer.Option("--all", help="Those that have ended, too.")] = False,
    limit: Annotated[
        int,
        typer.Option(min=1, max=MOST, help="How many of each kind at most."),
    ] = 20,
    as_json: Json = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """List what runs, then what waits in its order; with --all the newest of each kind first."""
    which = "" if ended else "&unfinished=true"
    with Client(url) as client:

        def listed(kind: str) -> list[Resource]:
            return list(client.get(f"/v1/{kind}?limit={limit}{which}")["data"])

        found = [job for jobs in _visible(listed).values() for job in jobs]
    table = Table(
        Column("id", no_wrap=True, min_width=32), "kind", "state", "model", "accepted (UTC)"
    )
    for job in found:
        model = job.get("model") or job["base_model"]
        table.add_row(job["id"], job["object"], job["state"], model, _when(job["created_at"]))
    answer(table, found, as_json=as_json)


@app.command("cancel")
def cancel(
    job_id: Annotated[str, typer.Argument(help="As `trce jobs list` shows it, or its beginning.")],
    as_json: Json = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Cancel a job that waits or runs."""
    with Client(url) as client:
        found = _only(_open(client), job_id, what="open jobs", listed_by="trce jobs list")
        job = client.delete(found["path"])
    answer(f"{job['id']} is {job['state']}", job, as_json=as_json)


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
        table.add_row(
            one["id"], one["kind"], one["tenant"], _when(one["finished_at"]), one["reason"]
        )
    answer(table, dead, as_json=as_json)


@app.command("retry")
def retry(
    job_id: Annotated[str, typer.Argument(help="As `trce jobs dead` lists it, or its beginning.")],
    as_json: Json = False,
    url: Url = "http://127.0.0.1:8000",
) -> None:
    """Try one of them again, with as many attempts as it had."""
    with Client(url) as client:
        found = _only(_dead(client), job_id, what="dead letters", listed_by="trce jobs dead")
        job = client.post(found["retry"])
    answer(f"{job['id']} is {job['state']}", job, as_json=as_json)


def _only(jobs: Sequence[Resource], job_id: str, *, what: str, listed_by: str) -> Resource:
    """The one whose id begins so. Raises JobNotFound."""
    found = [one for one in jobs if one["id"].startswith(job_id)]
    if len(found) != 1:
        raise JobNotFound(
            f"{len(found)} {what} have an id that begins with {job_id!r}; `{listed_by}` lists them"
        )
    return found[0]


def _visible(listed: Callable[[str], list[Resource]]) -> dict[str, list[Resource]]:
    """Kind -> its jobs, of the kinds that the key has a scope for.

    Raises:
        ScopeLacking: it has one for none of them.
    """
    found: dict[str, list[Resource]] = {}
    for kind in KINDS:
        try:
            found[kind] = listed(kind)
        except ScopeLacking:
            if kind == KINDS[-1] and not found:
                raise
    return found


def _open(client: Client) -> list[Resource]:
    """All that run or wait, however many have ended since they came."""

    def listed(kind: str) -> list[Resource]:
        page = client.get(f"/v1/{kind}?limit={MOST}&unfinished=true")
        return list(_all(client, kind) if page["has_more"] else page["data"])

    found: dict[str, Resource] = {}
    for kind, jobs in _visible(listed).items():
        found |= {
            job["id"]: job | {"path": f"/v1/{kind}/{job['id']}"}
            for job in jobs
            if job["state"] in OPEN
        }
    return list(found.values())


def _all(client: Client, kind: str) -> Iterator[Resource]:
    """Page by page: a queue that is longer than a page can be read from its newest end only."""
    after = ""
    while True:
        page = client.get(f"/v1/{kind}?limit={MOST}{after}")
        yield from page["data"]
        if not page["has_more"]:
            return
        after = f"&after={page['last_id']}"


def _dead(client: Client) -> list[Resource]:
    return list(client.get("/v1/dead-letters")["data"])


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
