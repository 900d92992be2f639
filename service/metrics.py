"""What Prometheus reads of the service: requests counted here, jobs as Redis knows them.

What stands in Redis is the same whichever service process tells it: aggregate over replicas with
`max`, and only the requests of each with `sum`.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import redis
from prometheus_client import (
    GC_COLLECTOR,
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from core.disk_metrics import DiskOfData
from core.errors import AppError, PromptRefused, StoreUnavailable
from core.job_counts import JobCounts
from core.queue import TASK_OF_KIND
from core.redis_memory import redis_memory
from core.registry import DEFAULT, ModelRegistry
from core.workers import WorkerRoll
from service.refused_models import RefusedModels

REQUEST_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 70)
"""Up to what `Prefer: wait` allows, and finest around the 50 ms that a request may take."""


class Metrics:
    def __init__(
        self,
        client: redis.Redis,
        counts: JobCounts,
        roll: WorkerRoll,
        registry: ModelRegistry,
        refused: RefusedModels,
        *,
        data_dir: Path,
        within_s: float,
    ) -> None:
        """
        Args:
            data_dir: on the disk whose room is shown.
            within_s: a worker that has not beaten for so long counts as gone.
        """
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "t2i_http_requests_total",
            "Requests, by route and status.",
            ["method", "route", "code"],
            registry=self._registry,
        )
        self._durations = Histogram(
            "t2i_http_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route", "waited"],
            buckets=REQUEST_S,
            registry=self._registry,
        )
        self._blocks = Counter(
            "t2i_safety_blocks_total",
            "What a policy objected to.",
            ["stage", "category"],
            registry=self._registry,
        )
        shared = _Shared(client, counts, roll, registry, refused, within_s=within_s)
        self._registry.register(shared)
        self._registry.register(DiskOfData(data_dir))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(GC_COLLECTOR)

    def request(
        self, method: str, route: str, code: int, seconds: float, *, waited: bool = False
    ) -> None:
        """
        Args:
            waited: for its job, as its client preferred: its time tells nothing of the service.
        """
        self._requests.labels(method, route, str(code)).inc()
        self._durations.labels(route, "yes" if waited else "no").observe(seconds)

    def refusal(self, error: AppError) -> None:
        if isinstance(error, PromptRefused):
            self._blocks.labels("prompt", error.finding.category).inc()

    def text(self) -> bytes:
        return generate_latest(self._registry)

    def listen(self, port: int, host: str) -> Callable[[], None]:
        """Show them on a port of their own, without a key; returns what ends that."""
        server, thread = start_http_server(port, host, self._registry)

        def end() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return end


class _Shared(Collector):
    """Facts that all processes share, looked up when they are asked for."""

    def __init__(
        self,
        client: redis.Redis,
        counts: JobCounts,
        roll: WorkerRoll,
        registry: ModelRegistry,
        refused: RefusedModels,
        *,
        within_s: float,
    ) -> None:
        self._redis = client
        self._counts = counts
        self._roll = roll
        self._models = registry
        self._refused = refused
        self._within_s = within_s
        self._asking = threading.Lock()

    def describe(self) -> list[Metric]:
        """Nothing: registering is not to ask Redis."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._asking:
            up = GaugeMetricFamily("t2i_redis_up", "Whether Redis answers.")
            try:
                found = [*self._jobs_and_workers(), self._memory()]
                up.add_metric([], 1)
            except StoreUnavailable:
                found = []
                up.add_metric([], 0)
        yield up
        yield from found
        # Before Redis has answered once, nobody knows which manifests are out of date.
        with contextlib.suppress(StoreUnavailable):
            yield from [self._served(), self._default(), self._refusals()]

    def _jobs_and_workers(self) -> Iterator[Metric]:
        depth = GaugeMetricFamily(
            "t2i_queue_depth", "Jobs that wait.", labels=["queue", "priority"]
        )
        outcomes = CounterMetricFamily(
            "t2i_jobs", "Jobs that have ended.", labels=["kind", "outcome"]
        )
        workers = GaugeMetricFamily(
            "t2i_worker_up", "Workers that beat lately.", labels=["role", "worker"]
        )
        for kind in TASK_OF_KIND:
            for priority, count in self._counts.depths(kind).items():
                depth.add_metric([kind, str(priority)], count)
            for outcome, count in self._counts.outcomes(kind).items():
                outcomes.add_metric([kind, outcome], count)
        for role in ("inference", "trainer"):
            for name in self._roll.present(role, self._within_s):
                workers.add_metric([role, name], 1)
        yield from (depth, outcomes, workers)

    def _memory(self) -> Metric:
        shown = GaugeMetricFamily(
            "t2i_redis_memory_bytes", "What Redis holds, and its maxmemory.", labels=["state"]
        )
        memory = redis_memory(self._redis)
        shown.add_metric(["used"], memory.used_bytes)
        if memory.bound_bytes:
            shown.add_metric(["max"], memory.bound_bytes)
        return shown

    def _served(self) -> Metric:
        served = GaugeMetricFamily("t2i_model_served", "Models that draw.", labels=["model"])
        for manifest in self._models.all():
            if self._models.serving.allows(manifest):
                served.add_metric([manifest.id], 1)
        return served

    def _default(self) -> Metric:
        served = GaugeMetricFamily(
            "t2i_default_model_served",
            "Whether the model that `default` means draws.",
            labels=["model"],
        )
        model_id = self._models.resolve(DEFAULT)
        try:
            self._models.served(model_id)
        except StoreUnavailable:
            raise
        except AppError:
            served.add_metric([model_id], 0)
        else:
            served.add_metric([model_id], 1)
        return served

    def _refusals(self) -> Metric:
        refused = GaugeMetricFamily(
            "t2i_model_refused", "Models that fail their checks.", labels=["model"]
        )
        for model_id in self._refused.all():
            refused.add_metric([model_id], 1)
        return refused
