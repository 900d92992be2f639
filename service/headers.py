"""Request headers that several routes understand, and the query of every list."""

from typing import Annotated

from fastapi import Header, Query

IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[ -~]*$",
        max_length=255,
        description="Any text you choose, printable ASCII. The same key with the same body gives "
        "the job that it made first, for 24 hours; with another body it is refused.",
    ),
]
Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description="`wait=N`: answer when the job has ended, after at most N (up to 60) seconds.",
    ),
]
LastEventId = Annotated[
    str,
    Header(
        alias="Last-Event-ID",
        pattern=r"^([0-9]{1,15}-[0-9]{1,15})?$",
        description="The `id` of the last event that arrived: those after it are sent.",
    ),
]
Limit = Annotated[int, Query(ge=1, le=100, description="How many to list at most.")]
After = Annotated[
    str | None, Query(description="The id of the last one of the page before: `last_id`.")
]
Unfinished = Annotated[
    bool,
    Query(description="Only those that run, then those that wait, in the order of their places."),
]
