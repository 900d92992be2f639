"""Far more clients at once than the service has threads, or the queue has room."""

import asyncio
from urllib.parse import urlsplit

from benchmarks.connections import storm

CLIENTS = 300
ROOM = 200


def test_many_clients_at_once_are_each_answered_and_nothing_is_lost(start, jobs):
    address, _ = start(TRCE_MAX_OPEN_JOBS_PER_TENANT=str(ROOM))

    outcome = asyncio.run(storm("127.0.0.1", urlsplit(address).port or 0, CLIENTS))

    assert outcome.sound, outcome
    assert outcome.answers == {"202": ROOM, "429": CLIENTS - ROOM}
    assert jobs.counts.queued("generation") == ROOM
