"""Server-sent events of one job, for a client that may come and go; see `service.feeds`."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.params import Depends as Dependency
from sse_starlette import EventSourceResponse, ServerSentEvent

from core.callers import Caller
from core.errors import ApiKeyRefused, StoreUnavailable
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
KNOWN_EVERY_S = 5.0
"""So often a stream looks whether who listens would still be let in: a key may be revoked."""
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
    job_id: str,
    request: Request,
    parts: Parts,
    caller: Caller,
    records: Records,
    shown: Shown,
    *,
    after: str,
) -> Response:
    """The events of a job after entry `after` (empty: all), until it has ended.

    Or until the caller's key, or session, counts no longer.

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
        _told(
            parts,
            Feed(parts.jobs, records, job.id, shown, after=after),
            lambda: _is_known(request, parts, caller),
        ),
        ping=ALIVE_EVERY_S,
        ping_message_factory=lambda: ServerSentEvent(comment="alive", sep=LINE_END),
        sep=LINE_END,
        send_timeout=SEND_WITHIN_S,
        shutdown_grace_period=GRACE_S,
    )


def _is_known(request: Request, parts: Parts, caller: Caller) -> bool:
    try:
        parts.doorkeeper.identify(request.headers, request_id=caller.request_id, changes=False)
    except ApiKeyRefused:
        return False
    except StoreUnavailable:
        pass  # then there is nothing to tell, either
    return True


async def _told(
    parts: Parts, feed: Feed, is_known: Callable[[], bool]
) -> AsyncIterator[ServerSentEvent]:
    pause_s, until = SHORTEST_PAUSE_S, time.monotonic() + parts.longest_stream_s
    known_until = time.monotonic() + KNOWN_EVERY_S
    while not parts.closing.is_set() and time.monotonic() < until:
        if time.monotonic() >= known_until:
            if not await run_in_threadpool(is_known):
                return
            known_until = time.monotonic() + KNOWN_EVERY_S
        events = await run_in_threadpool(feed.look)
        for event in events:
            yield event
        if feed.ended:
            return
        pause_s = SHORTEST_PAUSE_S if events else min(pause_s * 1.5, LONGEST_PAUSE_S)
        await asyncio.sleep(pause_s)
