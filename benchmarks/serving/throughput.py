"""1, 8 and 32 clients: the service, the naive server, and the bare loop, in turns."""

import os
import statistics
from typing import Any

from benchmarks.serving import load
from benchmarks.serving.bare_loop import best_split, looping
from benchmarks.serving.pipeline import calling
from benchmarks.serving.servers import running_server
from benchmarks.stack import running_stack

CLIENTS = (1, 8, 32)
ROUNDS = 3
SECONDS = 12.0
WARM_UP_S = 2.0
BARE_S = 4.0
P95 = 95


def measure() -> dict[str, Any]:
    split, searched = best_split(os.cpu_count() or 1)
    runs: dict[tuple[str, int], list[load.Run]] = {}
    bare: list[float] = []
    with calling() as calls:
        threads = calls.best_threads()
    with (
        running_server("naive", threads=threads) as naive,
        running_stack() as stack,
        looping(split.processes, split.threads) as loops,
    ):
        contenders = {"naive": naive, "service": stack.model_url()}
        for url in contenders.values():
            load.run([url], clients=max(CLIENTS), seconds=3)  # models are loaded, caches are full
        for clients in CLIENTS:
            for _ in range(ROUNDS):
                around = []
                for name, url in contenders.items():
                    # The bare loop before the service and after it: machines change their speed.
                    if name == "service":
                        around.append(loops.pictures_per_s(split.rows, BARE_S))
                    one = load.run([url], clients=clients, seconds=SECONDS, warm_up_s=WARM_UP_S)
                    runs.setdefault((name, clients), []).append(one)
                around.append(loops.pictures_per_s(split.rows, BARE_S))
                bare.append(statistics.mean(around))
    table = {
        f"{name}_{clients}": {
            "pictures_per_s": statistics.median(one.pictures_per_s for one in turns),
            "p50_s": statistics.median(one.latency_s(50) for one in turns),
            "p95_s": statistics.median(one.latency_s(P95) for one in turns),
        }
        for (name, clients), turns in runs.items()
    }
    last = max(CLIENTS)
    ratios = [
        (ours.pictures_per_s / theirs.pictures_per_s, ours.latency_s(P95) / theirs.latency_s(P95))
        for ours, theirs in zip(runs["service", last], runs["naive", last], strict=True)
    ]
    of_limit = [
        ours.pictures_per_s / limit
        for ours, limit in zip(runs["service", last], bare[-ROUNDS:], strict=True)
    ]
    return {
        "vs_naive_throughput_32": statistics.median(ratio for ratio, _ in ratios),
        "vs_naive_p95_32": statistics.median(ratio for _, ratio in ratios),
        "vs_bare_loop": statistics.median(of_limit),
        "detail": {
            "contenders": table,
            "naive_threads": threads,
            "bare_loop": {
                "best": vars(split),
                "pictures_per_s": bare,
                "searched_pictures_per_s": searched,
            },
            "each_round_of_32": {"vs_naive": ratios, "vs_bare_loop": of_limit},
        },
    }
