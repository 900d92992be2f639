"""What is told of a job beside its record: what happened to it, and what it draws."""

from typing import Any

import redis

from core.progress import PREVIEWS, Preview
from core.redis_connection import answering
from core.samples import ROUNDS, Samples

ENDED = "ended"
"""The channel on which the id of every job that ends is published (lua/prelude.lua)."""


FOLLOWED_FOR_S = 30
"""After a listener has last said that it is there."""


class JobNews:
    """All verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def events(self, job_id: str, *, after: str = "0") -> list[tuple[str, dict[str, str]]]:
        """What happened to a job after stream entry `after`: (entry id, fields), oldest first."""
        with answering():
            entries: Any = self._redis.xrange(f"events:{job_id}", min=f"({after}")
        return list(entries)

    def follow(self, job_id: str) -> None:
        """Somebody reads the events as they come: whoever draws the job tells of every step."""
        with answering():
            self._redis.set(f"followed:{job_id}", 1, ex=FOLLOWED_FOR_S)

    def has_forgotten_events(self, job_id: str, *, after: str = "0") -> bool:
        """Whether entries after `after` may be gone: a long job keeps only its latest ones."""
        with answering():
            try:
                stream: Any = self._redis.xinfo_stream(f"events:{job_id}")
            except redis.ResponseError:
                return False  # there is no stream
        if stream["entries-added"] == stream["length"] or not stream["first-entry"]:
            return False
        # What happened to it is kept before the progress that is not: see lua/prelude.lua.
        deleted = stream.get("max-deleted-entry-id", "0-0")
        return _entry(after) < max(_entry(stream["first-entry"][0]), _entry(deleted))

    def previews(self, job_id: str) -> list[Preview]:
        """The latest of each picture, in their order; none of a job that does not run."""
        with answering():
            kept: Any = self._redis.get(f"previews:{job_id}")
        return PREVIEWS.validate_json(kept) if kept else []

    def samples(self, job_id: str) -> list[Samples]:
        """The first round of its latest attempt and the newest, if any; one that is both once."""
        with answering():
            kept: Any = self._redis.get(f"samples:{job_id}")
        return ROUNDS.validate_json(kept) if kept else []


def _entry(stream_id: str) -> tuple[int, int]:
    """An id of a stream's entry, so that ids can be compared."""
    time_ms, _, number = stream_id.partition("-")
    return int(time_ms), int(number or 0)
