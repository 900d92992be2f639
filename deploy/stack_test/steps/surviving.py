"""What happens when something dies, or Redis is changed to one that would lose jobs."""

import time
from typing import Any

from deploy.stack_test.patience import JOB_WITHIN_S, eventually
from deploy.stack_test.stack import Stack

KILLED = ("inference", "service", "redis", "trainer")
KILL_EVERYTHING = ["python", "-c", "import os; os.kill(-1, 9)"]
KILL_IN_A_SHELL = ["sh", "-c", "kill -9 -1"]
STARTED_WITHIN_S = 60
AXE = {"name": "axe", "synonyms": ["hatchet"], "replacement": "flower"}


def survive_kills(stack: Stack) -> dict[str, Any]:
    """kill -9 of every process in a container; Docker starts it again, and no job is lost."""
    return {service: _survive(stack, service) for service in KILLED if service != "trainer"}


def survive_a_kill_of_the_trainer(stack: Stack) -> dict[str, Any]:
    """In the middle of an erasure asked for over HTTP, whose model then is promoted and drawn."""
    clients = stack.clients
    erasure = clients.erase(concepts=[AXE])
    eventually(
        lambda: clients.http.get(erasure).json()["state"] == "running",
        JOB_WITHIN_S,
        "the erasure does not begin",
    )
    found = _survive(stack, "trainer", erasure)
    model = clients.succeeded(erasure)["erased_model"]
    clients.post(f"/v1/models/{model}/promotion", {"reason": "stack test"})
    clients.picture(clients.generate(model, 7, prompt="an axe"))
    return found | {"model": model}


def _survive(stack: Stack, service: str, *others: str) -> dict[str, Any]:
    """
    Args:
        others: jobs that are running, and must end well, too.
    """
    jobs = [*others, *(stack.clients.generate(stack.model, number) for number in range(12))]
    container = stack.containers(service)[0]
    before = stack.state(container)["RestartCount"]
    killing = KILL_IN_A_SHELL if service == "redis" else KILL_EVERYTHING
    stack.compose("exec", "-T", service, *killing, check=False)
    began = time.monotonic()
    eventually(
        lambda: stack.state(container)["RestartCount"] > before,
        STARTED_WITHIN_S,
        f"{service} was not started again",
    )
    for path in jobs:
        stack.clients.succeeded(path)
    seconds = round(time.monotonic() - began, 1)
    stack.wait_healthy(service)
    stack.clients.wait_ready()
    return {"jobs": len(jobs), "lost": 0, "seconds_to_all_done": seconds}


def tell_of_lost_durability(stack: Stack) -> dict[str, Any]:
    """A Redis that would lose jobs is no readiness."""
    change = ["exec", "-T", "redis", "redis-cli", "config", "set", "appendfsync"]
    stack.compose(*change, "everysec")
    eventually(lambda: bool(stack.clients.missing()), STARTED_WITHIN_S, "it stays ready")
    said = stack.clients.missing()
    stack.compose(*change, "always")
    stack.clients.wait_ready()
    return {"readyz": said}
