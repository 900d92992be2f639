"""1, 8 and 32 clients: the service, the naive server, and the bare loop, in turns."""

import os
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from benchmarks.serving import load
from benchmarks.serving.bare_loop import best_split, looping
from benchmarks.serving.pipeline import calling
from benchmarks.serving.servers import running_server
from benchmarks.stack import running_stack

CLIENTS = (1, 8, 32)
ROUNDS = 3
LIMIT_ROUNDS = 5
"""Of the most clients against the bare loop, which is near."""
SECONDS = 12.0
WARM_UP_S = 2.0
BARE_S = 4.0
P95 = 95


@dataclass(frozen=True)
class Ratios:
    """Ours over theirs, of each round that ran with as many clients."""

    throughput: list[float]
    p95: list[float]

    @classmethod
    def of(cls, ours: Sequence[load.Run], theirs: Sequence[load.Run]) -> Self:
        rounds = list(zip(ours, theirs, strict=True))
        return cls(
            throughput=[one.pictures_per_s / other.pictures_per_s for one, other in rounds],
            p95=[one.latency_s(P95) / other.latency_s(P95) for one, other in rounds],
        )


def measure() -> dict[str, Any]:
    split, searched = best_split(os.cpu_count() or 1)
    runs: dict[tuple[str, int], list[load.Run]] = {}
    most = max(CLIENTS)
    bare, of_limit = [], []
    with calling() as calls:
        threads = calls.best_threads()
    with (
        running_server("naive", threads=threads) as naive,
        running_stack() as stack,
        looping(split.processes, split.threads) as loops,
    ):
        contenders = {"naive": naive, "service": stack.model_url()}
        for url in contenders.values():
            load.run([url], clients=most, seconds=3)  # models are loaded, caches are full
        for clients in CLIENTS:
            for _ in range(ROUNDS):
                for name, url in contenders.items():
                    runs.setdefault((name, clients), []).append(_loaded(url, clients))
        for _ in range(LIMIT_ROUNDS):
            # The bare loop before the service and after it: machines change their speed.
            before = loops.pictures_per_s(split.rows, BARE_S)
            ours = _loaded(stack.model_url(), most).pictures_per_s
            bare.append(statistics.mean([before, loops.pictures_per_s(split.rows, BARE_S)]))
            of_limit.append(ours / bare[-1])
    table = {
        f"{name}_{clients}": {
            "pictures_per_s": statistics.median(one.pictures_per_s for one in turns),
            "p50_s": statistics.median(one.latency_s(50) for one in turns),
            "p95_s": statistics.median(one.latency_s(P95) for one in turns),
        }
        for (name, clients), turns in runs.items()
    }
    vs_naive = {
        clients: Ratios.of(runs["service", clients], runs["naive", clients]) for clients in CLIENTS
    }
    return {
        "vs_naive_throughput_32": statistics.median(vs_naive[32].throughput),
        "vs_naive_p95_32": statistics.median(vs_naive[32].p95),
        "vs_naive_p95_8": statistics.median(vs_naive[8].p95),
        "vs_naive_throughput_1": statistics.median(vs_naive[1].throughput),
        "vs_bare_loop": statistics.median(of_limit),
        "detail": {
            "contenders": table,
            "naive_threads": threads,
            "bare_loop": {
                "best": vars(split),
                "pictures_per_s": bare,
                "searched_pictures_per_s": searched,
            },
            "each_round": {
                "vs_naive": {clients: asdict(ratios) for clients, ratios in vs_naive.items()},
                "vs_bare_loop": of_limit,
            },
        },
    }


def _loaded(url: str, clients: int) -> load.Run:
    return load.run([url], clients=clients, seconds=SECONDS, warm_up_s=WARM_UP_S)
