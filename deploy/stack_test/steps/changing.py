"""More workers, another version, down and up again: nothing is lost by any of it."""

import threading
import time
from typing import Any

from deploy.stack_test.stack import OUT, Stack
from deploy.stack_test.steps.first_run import OURS

DRAWERS = "inference"
PAUSE_S = 0.3
"""Between the requests of the client that goes on posting."""


def scale(stack: Stack) -> dict[str, Any]:
    stack.readme("--scale inference=2")
    stack.wait_healthy(DRAWERS)
    containers = stack.containers(DRAWERS)
    assert len(containers) == 2, containers
    began = time.monotonic()
    for path in [stack.clients.generate(stack.model, number, n=4) for number in range(20)]:
        stack.clients.succeeded(path)
    seconds = time.monotonic() - began
    drawn = []
    for container in containers:
        logs = stack.docker("logs", "--since", f"{int(seconds) + 5}s", container)
        drawn.append((logs.stdout + logs.stderr).count('"event": "drawn"'))
    assert all(drawn), drawn
    return {"jobs_of_each": drawn, "pictures": 80, "seconds": round(seconds, 1)}


def upgrade(stack: Stack) -> dict[str, Any]:
    """Everything but Redis is replaced by another version while clients go on posting."""
    old = stack.state(stack.containers("service")[0])["Image"]
    for image in ("service", "worker"):
        stack.build(f"trce/{image}:0.1.0-next", f"FROM trce/{image}:0.1.0\nLABEL next=1\n")
    stack.env["TRCE_VERSION"] = "0.1.0-next"
    accepted: list[str] = []
    stop = threading.Event()

    def post() -> None:
        while not stop.is_set():
            accepted.append(stack.clients.generate(stack.model, len(accepted)))
            time.sleep(PAUSE_S)

    client = threading.Thread(target=post)
    client.start()
    try:
        began = time.monotonic()
        stack.compose("up", "-d", "--scale", f"{DRAWERS}=2")
        stack.wait_healthy("service", DRAWERS, "trainer")
        stack.clients.wait_ready()
        seconds = round(time.monotonic() - began, 1)
    finally:
        stop.set()
        client.join()
    for path in accepted:
        stack.clients.succeeded(path)
    new = stack.state(stack.containers("service")[0])["Image"]
    assert new != old, "the service was not replaced"
    return {"seconds": seconds, "accepted_meanwhile": len(accepted), "lost": 0}


def go_down_and_come_back(stack: Stack) -> dict[str, Any]:
    """Jobs, pictures, keys and models are in the volumes."""
    generation = stack.clients.generate(stack.model, 11)
    picture = stack.clients.picture(generation)
    stack.readme("down")
    assert not stack.compose("ps", "-q").stdout.split()
    began = time.monotonic()
    stack.compose("up", "-d")
    stack.wait_healthy(*OURS)
    stack.clients.wait_ready()
    seconds = round(time.monotonic() - began, 1)
    assert stack.clients.picture(generation) == picture
    stack.clients.picture(stack.clients.generate(stack.model, 11))
    return {"seconds": seconds, "kept": ["the key", "the job", "its picture", "the model"]}


def serve_bases_for_a_trial(stack: Stack) -> dict[str, Any]:
    stack.env["TRCE_SERVE_UNERASED_BASE"] = "true"
    stack.compose("up", "-d")
    stack.wait_healthy(*OURS)
    stack.clients.wait_ready()
    picture = stack.clients.picture(stack.clients.generate("emoji", 7, prompt="a sharp dagger"))
    (OUT / "before.png").write_bytes(picture)
    return {"bytes": len(picture)}
