"""What happens to one job, as server-sent events: its stream in Redis, from any entry on.

id: 1795498729010-0          the entry's id; a client that lost the connection sends it back
event: state                 as Last-Event-ID, to any process of the service
data: {"at": 1795498729.01, "state": "running", "attempt": 1}

state     it waits, or runs; `why` says why it waits again
progress  how far it is
position  how many wait before it. Without an id: it is not part of the history
preview   what a picture will look like. Only the latest is kept, so no id either
missed    a long job's history keeps its latest events only, and some are gone. No id
done      the last one: the job as GET shows it
"""

import json
import time
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from sse_starlette import ServerSentEvent

from core.errors import JobNotFound, StoreUnavailable
from core.job_news import FOLLOWED_FOR_S
from core.job_store import JobStore
from core.jobs import Job, JobState
from core.progress import Progress
from service.previews import Previews
from service.records import Records

LINE_END = "\n"
LOOK_EVERY_S = 1.0
"""At the place in the queue."""
FOLLOW_EVERY_S = FOLLOWED_FOR_S / 3

Shown = Callable[[Job], BaseModel]
"""A job as its own GET shows it."""


class Feed:
    """What one listener is told of one job."""

    def __init__(
        self, jobs: JobStore, records: Records, job_id: str, shown: Shown, *, after: str
    ) -> None:
        self.ended = False
        """There is nothing more to tell."""
        self._jobs = jobs
        self._records = records
        self._job_id = job_id
        self._shown = shown
        self._after = after
        self._began = False
        self._previews = Previews(jobs.news, job_id)
        self._look_at = self._follow_at = 0.0
        self._ahead: int | None = None

    def look(self) -> list[ServerSentEvent]:
        """What is new. Nothing while Redis is away: it comes back, and the history with it."""
        events: list[ServerSentEvent] = []
        try:
            if not self._began and self._jobs.news.has_forgotten_events(
                self._job_id, after=self._after
            ):
                events.append(_event("missed", {}))
            self._began = True
            entries = self._jobs.news.events(self._job_id, after=self._after)
            for entry, fields in entries:
                events += self._entry(entry, fields, newest=entry == entries[-1][0])
                self._after = entry
            if not self.ended and time.monotonic() >= self._follow_at:
                self._follow_at = time.monotonic() + FOLLOW_EVERY_S
                self._jobs.news.follow(self._job_id)
            if not self.ended and time.monotonic() >= self._look_at:
                self._look_at = time.monotonic() + LOOK_EVERY_S
                events += self._place()
        except StoreUnavailable:
            pass
        except JobNotFound:
            self.ended = True  # its record has expired
        return events

    def _entry(self, entry: str, fields: dict[str, str], *, newest: bool) -> list[ServerSentEvent]:
        told: dict[str, Any] = {"at": int(entry.partition("-")[0]) / 1000}
        if "progress" in fields:
            progress = Progress.model_validate_json(fields["progress"])
            seen = self._previews.unseen() if progress.previewed else []
            return [
                _event("progress", told | progress.model_dump(), entry),
                *(_event("preview", preview.model_dump()) for preview in seen),
            ]
        if newest and JobState(fields["state"]).ended:
            job = self._jobs.get(self._job_id)
            self.ended = job.state.ended  # else it has been tried again since
            if self.ended:
                return [_event("done", self._shown(job).model_dump(mode="json"), entry)]
        told |= fields
        if "attempt" in told:
            told["attempt"] = int(told["attempt"])
        return [_event("state", told, entry)]

    def _place(self) -> list[ServerSentEvent]:
        """How many wait before it, if that has changed."""
        before, self._ahead = self._ahead, self._records.ahead(self._jobs.get(self._job_id))
        if self._ahead in {None, before}:
            return []
        return [_event("position", {"ahead": self._ahead})]


def _event(name: str, data: dict[str, Any], entry: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(json.dumps(data), event=name, id=entry, sep=LINE_END)
