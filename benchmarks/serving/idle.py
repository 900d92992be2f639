"""One request on an idle service against the bare pipeline call, at several step counts.

The bound is 1.05 times the bare call and 15 ms. The ratio is what each step costs more: the slope
of the line through the medians of both. The milliseconds are what the bound leaves: the most
that a request takes beyond 1.05 times the bare call with its steps, few or many. They pay for
HTTP, admission, the queue, the wake, the picture's file and its record.
"""

import statistics
import time
from typing import Any

import numpy as np

from benchmarks.serving.load import Client
from benchmarks.serving.pipeline import calling
from benchmarks.serving.workload import orders
from benchmarks.stack import running_stack

STEPS = (4, 10, 30, 50)
MOST_RATIO = 1.05
ROUNDS = 12
REST_S = 0.05


def measure() -> dict[str, Any]:
    seconds: dict[tuple[str, int], list[float]] = {}
    with running_stack() as stack, calling() as calls:
        threads = calls.best_threads()
        ahead = orders(seed=1, steps=STEPS)
        for turn in range(ROUNDS + 1):
            for order in (next(ahead) for _ in STEPS):
                time.sleep(REST_S)
                # A new connection each time: the server closes those that rest for seconds.
                client, began = Client(stack.model_url()), time.perf_counter()
                client.ask(order.body)
                asked = time.perf_counter() - began
                called = calls.seconds(order, threads=threads)
                if turn:  # the first one loads the model
                    seconds.setdefault(("service", order.steps), []).append(asked)
                    seconds.setdefault(("pipeline", order.steps), []).append(called)
    medians = {key: statistics.median(turns) for key, turns in seconds.items()}
    ratio, constant_s = np.polyfit(
        [medians["pipeline", steps] for steps in STEPS],
        [medians["service", steps] for steps in STEPS],
        deg=1,
    )
    beyond_s = {
        steps: statistics.median(
            asked - MOST_RATIO * called
            for asked, called in zip(
                seconds["service", steps], seconds["pipeline", steps], strict=True
            )
        )
        for steps in STEPS
    }
    return {
        "idle_overhead_ratio": float(ratio),
        "idle_overhead_ms": max(beyond_s.values()) * 1000,
        "detail": {
            "pipeline_threads": threads,
            "intercept_ms": float(constant_s * 1000),
            **{f"beyond_{steps}_ms": value * 1000 for steps, value in beyond_s.items()},
            **{f"{name}_{steps}_ms": median * 1000 for (name, steps), median in medians.items()},
        },
    }
