"""What a stack does not come up with: each is found at the start, and named with its fix."""

import socket
from typing import Any

from deploy.stack_test.stack import OUT, PROJECT, Stack

IMAGES = ("service", "worker")


def build(stack: Stack) -> dict[str, Any]:
    stack.compose("build")
    sizes: dict[str, Any] = {}
    for image in IMAGES:
        said = stack.docker("image", "inspect", "--format", "{{.Size}}", f"trce/{image}:0.1.0")
        sizes[f"{image}_mb"] = round(int(said.stdout) / 1e6)
    found = stack.docker(
        "run", "--rm", "trce/service:0.1.0", "python", "-c", "import torch", check=False
    )
    assert "No module named 'torch'" in found.stderr, "torch is in the service image"
    return sizes | {"stand_ins": stack.stand_ins}


def refuse_bad_settings(stack: Stack) -> dict[str, Any]:
    """By the image itself, and so wherever it is run."""
    closed = OUT / "closed"
    closed.mkdir(exist_ok=True)
    closed.chmod(0o755)
    copied = _copied_by_root(stack)
    found = {}
    for name, image, options, words in [
        ("unknown setting", "service", ["-e", "TRCE_BATCH_ROW=4"], "mean TRCE_BATCH_ROWS?"),
        ("unknown setting of a worker", "worker", ["-e", "TRCE_DEVISE=cpu"], "mean TRCE_DEVICE?"),
        ("half of S3", "service", ["-e", "TRCE_S3_ENDPOINT_URL=http://m:9000"], "set TRCE_S3_BUC"),
        ("data folder", "service", ["-v", f"{closed}:/data"], "`chown -R 10001:"),
        ("data folder of a worker", "worker", ["-v", f"{closed}:/data"], "`chown -R 10001:"),
        (
            "models copied by root",
            "service",
            ["-v", f"{copied}:/data"],
            "/data/models cannot be w",
        ),
        ("beats of root", "worker", ["-v", f"{copied}:/data"], "/data/run cannot be written"),
        ("no Redis", "service", [], "REDIS_URL is not set"),
        ("no Redis of a worker", "worker", ["-e", "TRCE_DEVICE=cpu"], "set REDIS_URL"),
        ("no GPU", "worker", ["-e", "TRCE_DEVICE=cuda"], "sees no GPU, and TRCE_DEVICE=cuda"),
    ]:
        found[name] = _refusal(stack, image, options, words)
    stack.docker("volume", "rm", copied)
    return found


def _copied_by_root(stack: Stack) -> str:
    """A volume that is open itself, with folders in it that are not."""
    name = f"{PROJECT}-copied"
    command = ["run", "--rm", "-u", "0", "-v", f"{name}:/data", "trce/service:0.1.0", "mkdir"]
    stack.docker(*command, "-p", "/data/models", "/data/run")
    return name


def _refusal(stack: Stack, image: str, options: list[str], words: str) -> str:
    """The line in which a container says why it does not start."""
    hardened = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"]  # noqa: S108
    command = ["run", "--rm", *hardened, *options, f"trce/{image}:0.1.0"]
    done = stack.docker(*command, check=False)
    assert done.returncode == 1, (command, done.stdout, done.stderr)
    lines = (done.stdout + done.stderr).splitlines()
    line = next((one for one in lines if words in one), None)
    assert line, (command, lines)
    assert "Traceback" not in done.stderr, (command, lines)
    return line.strip()


def refuse_a_careless_redis(stack: Stack) -> dict[str, Any]:
    """`setup` fails, and so nothing that waits for it starts."""
    stack.compose("up", "-d", "redis")
    stack.wait_healthy("redis")
    change = ["exec", "-T", "redis", "redis-cli", "config", "set"]
    found = {}
    for name, bad, good in [
        ("appendonly", "no", "yes"),
        ("maxmemory-policy", "allkeys-lru", "noeviction"),
    ]:
        stack.compose(*change, name, bad)
        done = stack.compose("up", "-d", check=False)
        assert not stack.containers("service") or not _runs(stack, "service"), "it came up"
        said = stack.compose("logs", "setup").stdout
        stack.compose(*change, name, good)
        line = next((one for one in said.splitlines() if f"--{name} {good}" in one), None)
        assert line, (said, done.stderr)
        found[name] = line.partition("| ")[2].strip()
        stack.compose("rm", "-f", "setup")
    return found


def refuse_a_taken_port(stack: Stack) -> dict[str, Any]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(stack.env["TRCE_PORT"])))
        taken.listen()
        done = stack.compose("up", "-d", "service", check=False)
    assert done.returncode != 0, "it came up"
    words = ("address already in use", "port is already allocated")
    line = next((one for one in done.stderr.splitlines() if any(w in one for w in words)), None)
    assert line, done.stderr
    # What follows is a first run.
    stack.compose("down", "-v")
    return {"said": line.strip()}


def _runs(stack: Stack, service: str) -> bool:
    return any(stack.state(one)["State"]["Running"] for one in stack.containers(service))
