"""Runs the whole stack in containers, as README.md tells it; `make stack-test`.

On the CPU, under a project name of its own, so that a stack that serves on this host is left
alone. What was tried and what was found goes to build/stack/summary.json; the exit code is 1 when
anything failed.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from compose_command import ROOT, compose

PROJECT = "trce-stack-test"
FILES = ["docker-compose.yml", "deploy/compose.cpu.yml"]
OUT = ROOT / "build" / "stack"
DRAWERS = "inference"
READY_WITHIN_S = 600.0
JOB_WITHIN_S = 600.0
AXE = {"name": "axe", "synonyms": ["hatchet"], "replacement": "flower"}
PNG = b"\x89PNG"
KILL_EVERYTHING = ["python", "-c", "import os; os.kill(-1, 9)"]


class Stack:
    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.env = os.environ | {
            "TRCE_PORT": str(port),
            "TRCE_SERVE_UNERASED_BASE": "true",
            "TRCE_LEASE_S": "8",
            "INFERENCE_MEMORY": "4g",
            "TRAINER_MEMORY": "6g",
        }
        self.command = compose(PROJECT, FILES, OUT)
        self.http = httpx.Client(base_url=self.url, timeout=30)

    def compose(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run one compose verb; what it says goes to build/stack/compose.log, too."""
        done = subprocess.run(
            [*self.command, *words],
            env=self.env,
            cwd=ROOT,
            text=True,
            capture_output=True,
            check=False,
        )
        with (OUT / "compose.log").open("a") as log:
            log.write(f"$ compose {' '.join(words)}\n{done.stdout}{done.stderr}")
        if check and done.returncode != 0:
            raise RuntimeError(f"compose {' '.join(words)}: {done.stderr[-2000:]}")
        return done

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "-q", service).stdout.split()

    def state(self, container: str) -> dict[str, Any]:
        command = ["docker", "inspect", "--format", "{{json .}}", container]
        said = subprocess.run(command, text=True, capture_output=True, check=True).stdout
        return dict(json.loads(said))

    def wait_healthy(self, *services: str) -> None:
        for service in services:
            for container in self.containers(service):
                eventually(
                    lambda one=container: (
                        self.state(one)["State"]["Health"]["Status"] == "healthy"
                    ),
                    READY_WITHIN_S,
                    f"{service} is not healthy",
                )

    def wait_ready(self) -> None:
        eventually(lambda: self.http.get("/readyz").is_success, READY_WITHIN_S, "not ready")

    def post(self, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
        """Tries again while the service is being replaced, with the same idempotency key."""
        answers: list[httpx.Response] = []

        def is_taken() -> bool:
            answers.append(self.http.post(path, json=body, headers=headers))
            return answers[-1].status_code not in {502, 503}

        eventually(is_taken, 180, f"POST {path} is not taken")
        return dict(answers[-1].raise_for_status().json())

    def generate(self, number: int, **fields: object) -> str:
        body = {"model": "emoji", "prompt": "a sharp dagger", "seed": number} | fields
        job = self.post("/v1/generations", body, **{"Idempotency-Key": f"stack-{time.time_ns()}"})
        return f"/v1/generations/{job['id']}"

    def ended(self, path: str) -> dict[str, Any]:
        jobs: list[dict[str, Any]] = []

        def has_ended() -> bool:
            jobs.append(self.http.get(path).raise_for_status().json())
            return jobs[-1]["state"] in {"succeeded", "failed", "cancelled"}

        eventually(has_ended, JOB_WITHIN_S, f"{path} does not end")
        return jobs[-1]

    def succeeded(self, path: str) -> dict[str, Any]:
        job = self.ended(path)
        if job["state"] != "succeeded":
            raise RuntimeError(f"{path}: {job}")
        return job


def eventually(is_so: Callable[[], bool], within_s: float, otherwise: str) -> None:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if is_so():
                return
        time.sleep(0.3)
    raise TimeoutError(f"{otherwise} within {within_s:.0f} s")


# --- what is tried, in order; each returns what it found -----------------------------------


def build(stack: Stack) -> dict[str, Any]:
    stack.compose("build")
    sizes = {}
    for image in ("service", "worker"):
        command = ["docker", "image", "inspect", "--format", "{{.Size}}", f"trce/{image}:0.1.0"]
        said = subprocess.run(command, text=True, capture_output=True, check=True).stdout
        sizes[f"{image}_mb"] = round(int(said) / 1e6)
    torch = ["run", "--rm", "--no-deps", "setup", "python", "-c", "import torch"]
    found = stack.compose(*torch, check=False)
    assert "No module named 'torch'" in found.stderr + found.stdout, (
        "torch is in the service image"
    )
    return sizes


def refuse_bad_settings(stack: Stack) -> dict[str, Any]:
    """Before anything runs: misspelt, half configured."""
    said = {}
    for name, settings, words in [
        ("unknown setting", ["TRCE_BATCH_ROW=4"], "did you mean TRCE_BATCH_ROWS?"),
        ("half of S3", ["TRCE_S3_ENDPOINT_URL=http://minio:9000"], "set TRCE_S3_BUCKET"),
    ]:
        options = [word for one in settings for word in ("-e", one)]
        done = stack.compose("run", "--rm", *options, "setup", check=False)
        assert done.returncode != 0, name
        lines = (done.stdout + done.stderr).splitlines()
        message = next((line for line in lines if words in line), None)
        assert message, lines
        said[name] = message.strip()
    return said


def come_up(stack: Stack) -> dict[str, Any]:
    began = time.monotonic()
    stack.compose("up", "-d")
    stack.wait_ready()
    stack.wait_healthy("redis", "service", "inference", "trainer")
    return {"seconds": round(time.monotonic() - began, 1)}


def stay_closed_without_a_key(stack: Stack) -> dict[str, Any]:
    answer = stack.http.post("/v1/generations", json={"prompt": "an axe"})
    assert answer.status_code == 401, answer.text
    made = stack.compose("exec", "-T", "service", "trce", "keys", "create", "--scope", "admin")
    key = next(word for word in made.stdout.split() if word.startswith("trce_"))
    stack.http.headers["Authorization"] = f"Bearer {key}"
    return {"without_key": answer.status_code}


def be_hardened(stack: Stack) -> dict[str, Any]:
    found = {}
    for service in ("redis", "service", "inference", "trainer"):
        host = stack.state(stack.containers(service)[0])["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["Init"], service
        assert host["CapDrop"] == ["ALL"], service
        assert host["Memory"] > 0, service
        assert host["PidsLimit"] > 0, service
        user = stack.compose("exec", "-T", service, "id", "-u").stdout.strip()
        assert user != "0", service
        found[service] = {"uid": int(user), "memory_mb": host["Memory"] >> 20}
    return found


def draw(stack: Stack) -> dict[str, Any]:
    began = time.monotonic()
    job = stack.succeeded(stack.generate(7))
    picture = stack.http.get(job["images"][0]["url"]).content
    assert picture.startswith(PNG)
    (OUT / "before.png").write_bytes(picture)
    return {"seconds": round(time.monotonic() - began, 2), "bytes": len(picture)}


def erase(stack: Stack) -> dict[str, Any]:
    began = time.monotonic()
    body = {"base_model": "emoji", "concepts": [AXE]}
    path = f"/v1/erasures/{stack.post('/v1/erasures', body)['id']}"
    model = stack.succeeded(path)["erased_model"]
    seconds = round(time.monotonic() - began, 1)
    stack.post(f"/v1/models/{model}/promotion", {"reason": "stack test"})
    job = stack.succeeded(stack.generate(7, model=model, prompt="an axe"))
    picture = stack.http.get(job["images"][0]["url"]).content
    assert picture.startswith(PNG)
    (OUT / "erased.png").write_bytes(picture)
    return {"seconds": seconds, "model": model}


def survive_kills(stack: Stack) -> dict[str, Any]:
    """kill -9 of every process in a container; Docker starts it again, and no job is lost."""
    found = {}
    for service in ("inference", "service", "redis", "trainer"):
        erasing = None
        if service == "trainer":
            body = {"base_model": "emoji", "concepts": [AXE | {"replacement": "leaf"}]}
            erasing = f"/v1/erasures/{stack.post('/v1/erasures', body)['id']}"
            eventually(
                lambda path=erasing: stack.http.get(path).json()["state"] == "running",
                JOB_WITHIN_S,
                "the erasure does not begin",
            )
        jobs = [stack.generate(number) for number in range(12)]
        container = stack.containers(service)[0]
        before = stack.state(container)["RestartCount"]
        killing = ["sh", "-c", "kill -9 -1"] if service == "redis" else KILL_EVERYTHING
        stack.compose("exec", "-T", service, *killing, check=False)
        began = time.monotonic()
        eventually(
            lambda one=container, count=before: stack.state(one)["RestartCount"] > count,
            60,
            f"{service} was not started again",
        )
        for path in [*jobs, *([erasing] if erasing else [])]:
            stack.succeeded(path)
        stack.wait_healthy(service)
        stack.wait_ready()
        found[service] = {
            "jobs": len(jobs) + bool(erasing),
            "lost": 0,
            "seconds_to_all_done": round(time.monotonic() - began, 1),
        }
    return found


def tell_of_lost_durability(stack: Stack) -> dict[str, Any]:
    """A Redis that would lose jobs is no readiness."""
    change = ["exec", "-T", "redis", "redis-cli", "config", "set", "appendfsync"]
    stack.compose(*change, "everysec")
    eventually(lambda: stack.http.get("/readyz").status_code == 503, 60, "it stays ready")
    said = stack.http.get("/readyz").json()["missing"]
    stack.compose(*change, "always")
    stack.wait_ready()
    return {"readyz": said}


def scale(stack: Stack) -> dict[str, Any]:
    stack.compose("up", "-d", "--no-recreate", "--scale", f"{DRAWERS}=2")
    stack.wait_healthy(DRAWERS)
    containers = stack.containers(DRAWERS)
    assert len(containers) == 2, containers
    began = time.monotonic()
    jobs = [stack.generate(number, n=4) for number in range(20)]
    for path in jobs:
        stack.succeeded(path)
    seconds = time.monotonic() - began
    drawn = []
    for container in containers:
        logs = subprocess.run(
            ["docker", "logs", "--since", f"{int(seconds) + 5}s", container],
            text=True,
            capture_output=True,
            check=True,
        )
        drawn.append((logs.stdout + logs.stderr).count('"event": "drawn"'))
    assert all(drawn), drawn
    return {"jobs_of_each": drawn, "pictures": 80, "seconds": round(seconds, 1)}


def upgrade(stack: Stack) -> dict[str, Any]:
    """Everything but Redis is replaced by another version while clients go on posting."""
    old = stack.state(stack.containers("service")[0])["Image"]
    stack.env["TRCE_VERSION"] = "0.1.0-next"
    for image in ("service", "worker"):
        dockerfile = f"FROM trce/{image}:0.1.0\nLABEL next=1\n"
        command = ["docker", "build", "-q", "-t", f"trce/{image}:0.1.0-next", "-"]
        subprocess.run(command, input=dockerfile, text=True, capture_output=True, check=True)
    accepted: list[str] = []
    stop = threading.Event()

    def post() -> None:
        while not stop.is_set():
            accepted.append(stack.generate(len(accepted)))
            time.sleep(0.3)

    client = threading.Thread(target=post)
    client.start()
    try:
        began = time.monotonic()
        stack.compose("up", "-d", "--scale", f"{DRAWERS}=2")
        stack.wait_healthy("service", DRAWERS, "trainer")
        stack.wait_ready()
        seconds = round(time.monotonic() - began, 1)
    finally:
        stop.set()
        client.join()
    for path in accepted:
        stack.succeeded(path)
    new = stack.state(stack.containers("service")[0])["Image"]
    assert new != old, "the service was not replaced"
    return {"seconds": seconds, "accepted_meanwhile": len(accepted), "lost": 0}


STEPS = [
    build,
    refuse_bad_settings,
    come_up,
    stay_closed_without_a_key,
    be_hardened,
    draw,
    erase,
    survive_kills,
    tell_of_lost_durability,
    scale,
    upgrade,
]


@contextlib.contextmanager
def cleared_away(stack: Stack) -> Iterator[None]:
    stack.compose("down", "-v", "--remove-orphans", check=False)
    try:
        yield
    finally:
        logs = stack.compose("logs", "--no-color", check=False).stdout
        (OUT / "containers.log").write_text(logs)
        stack.compose("down", "-v", "--remove-orphans")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "compose.log").unlink(missing_ok=True)
    stack = Stack()
    tried: list[dict[str, Any]] = []
    with cleared_away(stack):
        for step in STEPS:
            began = time.monotonic()
            name = step.__name__.replace("_", " ")
            result: dict[str, Any] = {"step": name, "ok": True}
            try:
                result["found"] = step(stack)
            except Exception as error:  # noqa: BLE001  (the summary is to be written)
                traceback.print_exc()
                result |= {"ok": False, "error": f"{type(error).__name__}: {error}"}
            result["took_s"] = round(time.monotonic() - began, 1)
            tried.append(result)
            print(json.dumps(result), flush=True)
            if not result["ok"]:
                break
    left = stack.compose("ps", "-q").stdout.split()
    passed = len(tried) == len(STEPS) and all(one["ok"] for one in tried) and not left
    summary = {"passed": passed, "compose": stack.command[:2], "steps": tried, "left": left}
    (OUT / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    sys.exit(not passed)


if __name__ == "__main__":
    main()
