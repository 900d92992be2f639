"""The stack under test: its containers, and the shell in which README's commands are run."""

import json
import os
import re
import shlex
import socket
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from deploy.compose_command import ROOT, compose
from deploy.stack_test.clients import Clients
from deploy.stack_test.patience import READY_WITHIN_S, eventually
from deploy.stack_test.readme import deployment
from deploy.stack_test.stand_ins import stand_ins

PROJECT = "trce-stack-test"
OUT = ROOT / "build" / "stack"
COMMAND_WITHIN_S = 1200
README_URL = "http://127.0.0.1:8000"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""The old Compose paints names even where nobody looks."""


class Stack:
    """On the CPU, with a port and a project name of its own: one that serves here is left alone.

    Besides that its settings are those of a first run; leases are short, so that the test is, and
    memory is bounded as hosts without a GPU have it.
    """

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        own = {name: value for name, value in os.environ.items() if not name.startswith("TRCE_")}
        self.stand_ins = stand_ins(_is_here, own)
        self.env = (
            own
            | self.stand_ins
            | {
                "TRCE_PORT": str(port),
                "TRCE_LEASE_S": "8",
                "INFERENCE_MEMORY": "4g",
                "TRAINER_MEMORY": "6g",
            }
        )
        self.deployment = deployment()
        self.command = compose(PROJECT, self.deployment.files, OUT)
        self.clients = Clients(f"http://127.0.0.1:{port}")
        self.model = ""
        """The erased model, once there is one."""

    def readme(self, words: str) -> str:
        """Run README's next command, which has these words in it; what it writes to stdout.

        `docker compose` is that of this project, and the address that of its port. What the
        command exports is there for the ones after it.
        """
        line = self.deployment.take(words).replace(README_URL, self.clients.url)
        exported = OUT / "environment"
        script = (
            f'docker() {{ test $1 = compose; shift; {shlex.join(self.command)} "$@"; }}\n'
            f"set -eo pipefail\n{line}\nenv -0 > {shlex.quote(str(exported))}\n"
        )
        said = self._run(["bash", "-c", script], shown=f"README: {line}").stdout
        pairs = [one.partition("=") for one in exported.read_text().split("\0") if one]
        exported.unlink()
        self.env = {name: value for name, _, value in pairs}
        return said

    def compose(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._run([*self.command, *words], check=check)

    def docker(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._run(["docker", *words], check=check)

    def build(self, image: str, dockerfile: str) -> None:
        """An image of a few lines, which copies nothing."""
        self._run(["docker", "build", "-q", "-t", image, "-"], given=dockerfile)

    def containers(self, service: str) -> list[str]:
        return self.compose("ps", "-q", service).stdout.split()

    def state(self, container: str) -> dict[str, Any]:
        return dict(json.loads(self.docker("inspect", "--format", "{{json .}}", container).stdout))

    def wait_healthy(self, *services: str) -> None:
        for service in services:
            for container in self.containers(service):
                is_healthy = partial(self._is_healthy, container)
                eventually(is_healthy, READY_WITHIN_S, f"{service} is not healthy")

    def _is_healthy(self, container: str) -> bool:
        return bool(self.state(container)["State"]["Health"]["Status"] == "healthy")

    def _run(
        self,
        command: list[str],
        *,
        shown: str = "",
        given: str = "",
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """What is run and said goes to build/stack/commands.log, but for looks at containers.

        Raises:
            RuntimeError: it failed, and `check` is set.
        """
        done = subprocess.run(
            command,
            env=self.env,
            cwd=ROOT,
            input=given,
            text=True,
            capture_output=True,
            timeout=COMMAND_WITHIN_S,
            check=False,
        )
        done.stdout = COLOUR.sub("", done.stdout)
        shown = shown or shlex.join(command)
        if command[:2] != ["docker", "inspect"]:
            _note(f"$ {shown}\n{done.stdout}{done.stderr}")
        if check and done.returncode != 0:
            raise RuntimeError(f"{shown}: {done.stderr[-2000:]}")
        return done


def _is_here(image: str) -> bool:
    command = ["docker", "image", "inspect", image]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def _note(text: str, log: Path = OUT / "commands.log") -> None:
    with log.open("a") as file:
        file.write(text)
