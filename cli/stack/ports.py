"""The ports that the processes of a stack listen on."""

import socket

from cli.stack.worker_count import inference_workers
from core.addresses import family_of
from core.checkup.check import Check
from core.checkup.port import check_free
from core.settings import Settings


def free_port(host: str) -> int:
    with socket.socket(family_of(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def worker_names(settings: Settings) -> dict[str, list[str]]:
    """Of the workers that `trce up` starts, by their role."""
    counts = {"inference": inference_workers(settings), "trainer": settings.trainer_workers}
    return {role: [f"{role}-{n}" for n in range(count)] for role, count in counts.items()}


def metrics_ports(settings: Settings) -> dict[str, int]:
    """TRCE_METRICS_PORT is the service's, and each worker has the next; none where it is 0."""
    if not settings.metrics_port:
        return {}
    workers = [name for names in worker_names(settings).values() for name in names]
    return {name: settings.metrics_port + n for n, name in enumerate(["service", *workers])}


def check_stack_ports(settings: Settings) -> list[Check]:
    """Nobody else may listen on any of them."""
    checks = [check_free(settings.host, settings.port, "--port or TRCE_PORT")]
    for name, port in metrics_ports(settings).items():
        one = check_free(settings.metrics_host, port, "TRCE_METRICS_PORT")
        checks.append(one.model_copy(update={"name": f"metrics port of {name}"}))
    return checks
