"""1, 8 and 32 clients: the service, the naive server, and the bare loop, in turns."""

import os
import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any, Self

from benchmarks.serving import load
from benchmarks.serving.bare_loop import best_split, looping
from benchmarks.serving.servers import running_server
from benchmarks.stack import running_stack

CLIENTS = (1, 8, 32)
ROUNDS = 3
LIMIT_ROUNDS = 5
"""Of the most clients against the bare loop, which is near."""
SECONDS = {1: 6.0, 8: 10.0, 32: 20.0}
"""By clients: what 32 have half done at either end moves a run of 10 s by 4 %, of 20 by 2 %."""
BARE_S = 4.0
PROBES = 2
PROBE_S = 5.0
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
    most = max(CLIENTS)
    found = best_split(os.cpu_count() or 1, most)
    split = found.best
    runs: dict[tuple[str, int], list[load.Run]] = {}
    bare, of_limit, of_any_size, of_own = [], [], [], []
    with (
        running_stack() as stack,
        looping(split.processes, split.threads) as loops,
        ExitStack() as beside,
    ):
        naive_speeds = speeds_by_threads("naive")
        threads = max(naive_speeds, key=lambda threads: naive_speeds[threads])
        naive = beside.enter_context(running_server("naive", threads=threads))
        contenders = {"naive": naive, "service": stack.model_url()}
        load.run([naive], clients=1, seconds=1)
        load.run([stack.model_url()], clients=most, seconds=3)  # every worker is warm
        for clients in CLIENTS:
            for turn in range(ROUNDS):
                for name, url in contenders.items():
                    runs.setdefault((name, clients), []).append(_loaded(url, clients, turn))
        for turn in range(LIMIT_ROUNDS):
            # The bare loop before the service and after it: machines change their speed.
            before = loops.pictures_per_s(split.rows, BARE_S)
            ours = _loaded(stack.model_url(), most, turn).pictures_per_s
            bare.append(statistics.mean([before, loops.pictures_per_s(split.rows, BARE_S)]))
            of_limit.append(ours / bare[-1])
            of_any_size.append(ours / loops.pictures_per_s(found.rows_of_any, BARE_S))
            of_own.append(ours / loops.pictures_per_s(split.rows, BARE_S, lean=True))
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
        "vs_own_loop": statistics.median(of_own),
        "detail": {
            "contenders": table,
            "naive_threads": threads,
            "naive_searched_pictures_per_s": naive_speeds,
            "bare_loop": {
                "best": vars(split),
                "pictures_per_s": bare,
                "searched_pictures_per_s": found.pictures_per_s,
                "rows_of_any_size": found.rows_of_any,
                "vs_any_size": statistics.median(of_any_size),
            },
            "each_round": {
                "vs_naive": {clients: asdict(ratios) for clients, ratios in vs_naive.items()},
                "vs_bare_loop": of_limit,
                "vs_own_loop": of_own,
            },
        },
    }


def speeds_by_threads(module: str) -> dict[int, float]:
    """Pictures a second of a server of this package with 1 thread and with all cores, in turns.

    Under load, as it will be: a bare call in another process can be fastest with another number.
    """
    with ExitStack() as servers:
        urls = {
            threads: servers.enter_context(running_server(module, threads=threads))
            for threads in sorted({1, os.cpu_count() or 1})
        }
        speeds: dict[int, list[float]] = {threads: [] for threads in urls}
        for turn in range(PROBES):
            for threads, url in urls.items():
                # Two clients: one waits while the other's picture is drawn.
                run = load.run([url], clients=2, seconds=PROBE_S, seed=turn)
                speeds[threads].append(run.pictures_per_s)
    return {threads: statistics.median(turns) for threads, turns in speeds.items()}


def _loaded(url: str, clients: int, turn: int) -> load.Run:
    """Each turn has other prompts, and clients that are otherwise on their way."""
    return load.run([url], clients=clients, seconds=SECONDS[clients], seed=turn)
