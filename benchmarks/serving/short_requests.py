"""Short requests while long ones run: the service against two servers of static batches.

Both have one process with one thread for each of two cores, and the same clients.
"""

import statistics
import time
from typing import Any

from benchmarks.serving import load
from benchmarks.serving.servers import running_server
from benchmarks.stack import running_stack

LONG, SHORT = (50,), (4,)
LONG_CLIENTS, SHORT_CLIENTS = 10, 2
ROUNDS = 3
SECONDS = 15.0
P95 = 95


def measure() -> dict[str, Any]:
    p95_s: dict[str, list[float]] = {"static": [], "service": []}
    with (
        running_server("static_batches", threads=1) as first,
        running_server("static_batches", threads=1) as second,
        running_stack(workers=2) as stack,
    ):
        contenders = {"static": [first, second], "service": [stack.model_url()]}
        for urls in contenders.values():
            load.run(urls, clients=8, seconds=2, steps=SHORT)  # models are loaded
        for _ in range(ROUNDS):
            for name, urls in contenders.items():
                p95_s[name].append(short_p95_s(urls))
    ratios = [a / b for a, b in zip(p95_s["static"], p95_s["service"], strict=True)]
    return {"short_request_p95_ratio": statistics.median(ratios), "detail": {"p95_s": p95_s}}


def short_p95_s(urls: list[str]) -> float:
    with load.asking(urls, clients=LONG_CLIENTS, steps=LONG) as long:
        long.begin()
        short = load.run(urls, clients=SHORT_CLIENTS, seconds=SECONDS, steps=SHORT)
        long.end(time.monotonic())
    return short.latency_s(P95)
