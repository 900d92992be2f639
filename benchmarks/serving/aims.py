"""What each figure is to reach."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Aim:
    what: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def words(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "-" if self.at_most is None else f"<= {self.at_most:g}"

    def met(self, value: float) -> bool:
        if self.at_least is not None:
            return value >= self.at_least
        return self.at_most is None or value <= self.at_most


AIMS = {
    "vs_naive_throughput_32": Aim("pictures/s of the naive server, 32 clients", at_least=1.8),
    "vs_naive_p95_32": Aim("p95 of the naive server, 32 clients", at_most=1.0),
    "vs_naive_p95_8": Aim("p95 of the naive server, 8 clients", at_most=1.0),
    "vs_naive_throughput_1": Aim("pictures/s of the naive server, 1 client", at_least=1.0),
    "vs_bare_loop": Aim("pictures/s of the bare UNet loop, 32 clients", at_least=0.90),
    "vs_own_loop": Aim("pictures/s of a bare loop of the worker's UNet, 32 clients"),
    "idle_overhead_ratio": Aim("a step, of a step of the bare pipeline call", at_most=1.05),
    "idle_overhead_ms": Aim("ms beyond 1.05 times the bare call", at_most=15.0),
    "short_request_p95_ratio": Aim(
        "p95 of short requests with static batches over ours", at_least=3.0
    ),
    "variants_throughput_ratio": Aim("8 text-map variants, of one", at_least=0.85),
    "swap_copy_ratio": Aim("swap at SD 1.5's size, of a copy of the bytes", at_most=1.5),
    "load_ratio": Aim("verified load, of from_pretrained", at_most=1.2),
    "lean_pass_ratio": Aim("a UNet pass of 32 rows, of diffusers' own"),
    "scaling_4": Aim("4 simulated GPUs, of 4 times one"),
    "scaling_16": Aim("16 simulated GPUs, of 16 times one", at_least=0.95),
    "cpu_s_per_job": Aim("CPU seconds of service and Redis for a job"),
}
"""Key of the result -> its aim, in the order of the table."""


def missed(result: Mapping[str, float]) -> list[str]:
    """The figures among those measured that are not what they are to be, with their aims."""
    return [
        f"{key} is {result[key]:.3f}, not {aim.words}"
        for key, aim in AIMS.items()
        if key in result and not aim.met(result[key])
    ]
