"""How many jobs wait, and how many have ended."""

from typing import Any

import redis

from core.job_specs import Kind
from core.jobs import JobState
from core.redis_connection import answering

PRIORITIES = 3
PRIORITY_SCORE = 10**9
"""What a priority adds to a job's place (lua/submit.lua)."""


class JobCounts:
    """All verbs raise StoreUnavailable while Redis does not answer."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def queued(self, kind: Kind) -> int:
        with answering():
            count: Any = self._redis.get(f"queued:{kind}")
        return int(count or 0)

    def depths(self, kind: Kind) -> dict[int, int]:
        """How many jobs wait, by priority."""
        counts = dict.fromkeys(range(PRIORITIES), 0)
        with answering():
            classes: Any = self._redis.smembers(f"classes:{kind}")
            pipe = self._redis.pipeline(transaction=False)
            for queue_class in classes:
                for priority in counts:
                    low, high = priority * PRIORITY_SCORE, (priority + 1) * PRIORITY_SCORE
                    pipe.zcount(f"queue:{kind}:{queue_class}", low, f"({high}")
            for place, count in enumerate(pipe.execute()):
                counts[place % PRIORITIES] += count
        return counts

    def ahead(self, kind: Kind, job_id: str) -> int:
        """How many waiting jobs have a better place than `job_id`; workers may bend that a little.

        0 for a job that does not wait.
        """
        with answering():
            score: Any = self._redis.hget(f"job:{job_id}", "score")
            pipe = self._redis.pipeline(transaction=False)
            classes: Any = self._redis.smembers(f"classes:{kind}")
            for queue_class in classes:
                pipe.zscore(f"queue:{kind}:{queue_class}", job_id)
                pipe.zcount(f"queue:{kind}:{queue_class}", "-inf", f"({score or 0}")
            answers = pipe.execute()
        places, counts = answers[::2], answers[1::2]
        return sum(counts) if any(place is not None for place in places) else 0

    def outcomes(self, kind: Kind) -> dict[str, int]:
        """How many jobs have ever ended, by the state they ended in."""
        with answering():
            counted: Any = self._redis.hgetall(f"outcomes:{kind}")
        ended = [state.value for state in JobState if state.ended]
        return {state: int(counted.get(state, 0)) for state in ended}
