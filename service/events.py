"""Server-sent events of one job, for a client that may come and go; see `service.feeds`."""

import asyncio
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

from fastapi import Depends, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.params import Depends as Dependency
from sse_starlette import EventSourceResponse, ServerSentEvent

from service.callers import InCaller
from service.feeds import LINE_END, Feed, Shown
from service.linking import described_event
from service.records import Records
from service.wiring import InParts, Parts

FIRST = "0-0"
ALIVE_EVERY_S = 15.0
"""A comment, so that proxies do not take a silent stream for a dead one."""
SEND_WITHIN_S = 30.0
"""A client that takes nothing for this long is let go."""
SHORTEST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5
GRACE_S = 2.0
"""For streams to end by themselves when the process is told to stop."""

NAMES = ("state", "progress", "position", "preview", "missed", "done")
DESCRIBED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "`state`, `progress`, `position`, `preview`, `missed`; at last `done`",
        "content": {"text/event-stream": {"schema": described_event(NAMES)}},
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
    if job.state.ended and not await run_in_threadpool(
        parts.jobs.news.events, job.id, after=after
    ):
        # Tells an EventSource that there is nothing to connect to again for.
        return Response(status_code=HTTPStatus.NO_CONTENT)
    return EventSourceResponse(
        _told(parts, Feed(parts.jobs, records, job.id, shown, after=after)),
        ping=ALIVE_EVERY_S,
        ping_message_factory=lambda: ServerSentEvent(comment="alive", sep=LINE_END),
        sep=LINE_END,
        send_timeout=SEND_WITHIN_S,
        shutdown_grace_period=GRACE_S,
    )


async def _told(parts: Parts, feed: Feed) -> AsyncIterator[ServerSentEvent]:
    pause_s, until = SHORTEST_PAUSE_S, time.monotonic() + parts.longest_stream_s
    while not parts.closing.is_set() and time.monotonic() < until:
        events = await run_in_threadpool(feed.look)
        for event in events:
            yield event
        if feed.ended:
            return
        pause_s = SHORTEST_PAUSE_S if events else min(pause_s * 1.5, LONGEST_PAUSE_S)
        await asyncio.sleep(pause_s)
