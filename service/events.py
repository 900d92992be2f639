"""What happens to one job, as server-sent events: its stream in Redis, from any entry on.

id: 1795498729010-0          the entry's id; a client that lost the connection sends it back
event: state                 as Last-Event-ID, to any process of the service
data: {"at": 1795498729.01, "state": "running", "attempt": 1}

state     it waits, or runs; `why` says why it waits again
progress  how far it is
position  how many wait before it. Without an id: it is not part of the history
missed    a long job's history keeps its latest events only, and some are gone. No id either
done      the last one: the job as GET shows it
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

from fastapi import Depends, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.params import Depends as Dependency
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent

from core.errors import JobNotFound, StoreUnavailable
from core.job_store import JobStore
from core.jobs import Job, JobState
from service.callers import InCaller
from service.records import Records
from service.wiring import InParts, Parts

FIRST = "0-0"
ALIVE_EVERY_S = 15.0
"""A comment, so that proxies do not take a silent stream for a dead one."""
SEND_WITHIN_S = 30.0
"""A client that takes nothing for this long is let go."""
LINE_END = "\n"
SHORTEST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
LOOK_EVERY_S = 1.0
"""At the place in the queue."""
GRACE_S = 2.0
"""For streams to end by themselves when the process is told to stop."""

Shown = Callable[[Job], BaseModel]
"""A job as its own GET shows it."""

DESCRIBED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`state`, `progress`, `position`, `missed`, and at last `done`",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The job has ended, and `Last-Event-ID` was its last event"},
}


async def _one_stream(parts: InParts, caller: InCaller) -> AsyncIterator[None]:
    with parts.streams.one_more(caller.tenant):
        yield


def streamed() -> Dependency:
    """A dependency of every route that answers with events.

    Its second half runs when the answer has been sent, however that ended.
    """
    dependency = Depends(_one_stream)
    assert isinstance(dependency, Dependency)
    return dependency


async def events_of(
    job_id: str, parts: Parts, caller: InCaller, records: Records, shown: Shown, *, after: str
) -> Response:
    """The events of a job after entry `after` (empty: all), until it has ended.

    Raises:
        JobNotFound, StoreUnavailable.
    """
    job = await run_in_threadpool(records.get, job_id, caller)
    after = after or FIRST
    if job.state.ended and not await run_in_threadpool(parts.jobs.events, job.id, after=after):
        # Tells an EventSource that there is nothing to connect to again for.
        return Response(status_code=HTTPStatus.NO_CONTENT)
    return EventSourceResponse(
        _follow(parts, records, job, shown, after=after),
        ping=ALIVE_EVERY_S,
        ping_message_factory=lambda: ServerSentEvent(comment="alive", sep=LINE_END),
        sep=LINE_END,
        send_timeout=SEND_WITHIN_S,
        shutdown_grace_period=GRACE_S,
    )


async def _follow(
    parts: Parts, records: Records, job: Job, shown: Shown, *, after: str
) -> AsyncIterator[ServerSentEvent]:
    pause_s, look_at, ahead = SHORTEST_PAUSE_S, 0.0, None
    if await run_in_threadpool(parts.jobs.has_forgotten_events, job.id, after=after):
        yield _event("missed", {})
    while not parts.closing.is_set():
        try:
            for entry, fields in await run_in_threadpool(parts.jobs.events, job.id, after=after):
                after, pause_s = entry, SHORTEST_PAUSE_S
                if _ends(fields):
                    yield await run_in_threadpool(_done, parts.jobs, job.id, entry, shown)
                    return
                yield _told(entry, fields)
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + LOOK_EVERY_S
                place = await run_in_threadpool(_ahead, parts.jobs, records, job.id)
                if place not in {None, ahead}:
                    yield _event("position", {"ahead": place})
                ahead = place
        except JobNotFound:
            return  # its record has expired
        except StoreUnavailable:
            pause_s = LONGEST_PAUSE_S  # it comes back, and the history with it
        await asyncio.sleep(pause_s)
        pause_s = min(pause_s * 1.5, LONGEST_PAUSE_S)


def _ahead(jobs: JobStore, records: Records, job_id: str) -> int | None:
    return records.ahead(jobs.get(job_id))


def _ends(fields: dict[str, str]) -> bool:
    return "state" in fields and JobState(fields["state"]).ended


def _done(jobs: JobStore, job_id: str, entry: str, shown: Shown) -> ServerSentEvent:
    return _event("done", shown(jobs.get(job_id)).model_dump(mode="json"), entry)


def _told(entry: str, fields: dict[str, str]) -> ServerSentEvent:
    told: dict[str, Any] = {"at": int(entry.partition("-")[0]) / 1000}
    if "progress" in fields:
        told |= json.loads(fields["progress"])
        return _event("progress", told, entry)
    told |= fields
    if "attempt" in told:
        told["attempt"] = int(told["attempt"])
    return _event("state", told, entry)


def _event(name: str, data: dict[str, Any], entry: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(data), event=name, id=entry, sep=LINE_END)
