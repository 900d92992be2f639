"""The main job: start a stack, draw, erase, promote, draw again, judge, report."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from rich.console import Console

from cli.client import Client
from cli.demo.drawing import draw
from cli.demo.figures import Figures, judge_pairs, other_accuracies, table, target_rates
from cli.demo.gallery import gallery
from cli.demo.prompts import choose
from cli.demo.report import write_report
from cli.following import follow
from cli.stack.broker import broker_url
from cli.stack.lock import only_stack
from cli.stack.ports import free_port
from core import presets
from core.children import start_child, stop_child
from core.errors import Misconfigured
from core.settings import SHIPPED_MODELS
from core.specs import ErasureSpec, SteeringOptions
from diffusion.judge import Judge
from diffusion.model_concepts import ModelConcepts

BASE_MODEL, PRESET = "emoji", "weapons"
READY_WITHIN_S = 120.0


def run_demo(out: Path, *, seed: int, console: Console) -> Figures:
    """Leaves gallery.png, report.html and summary.json in `out`.

    Raises:
        Misconfigured: the stack does not start.
        JobFailed, ServiceRefused, ServiceUnreachable.
    """
    folder = SHIPPED_MODELS / BASE_MODEL
    known = ModelConcepts.of(folder)
    assert known is not None, "the shipped model says what it draws"
    prompts = choose(known.concepts, seed=seed)
    with stack(out) as url, Client(url) as client:
        console.print(f"the service listens on {url}")
        started = time.monotonic()
        before = draw(client, prompts, BASE_MODEL, console)
        drawing_s = time.monotonic() - started

        asked = ErasureSpec(base_model=BASE_MODEL, preset=PRESET, steering=SteeringOptions())
        accepted = client.erase(asked)
        erasure = follow(client, accepted["id"], console)
        erased_model = erasure["erased_model"]
        client.post(f"/v1/models/{erased_model}/promotion")
        console.print(f"promoted {erased_model}")

        started = time.monotonic()
        after = draw(client, prompts, erased_model, console)
        drawing_s += time.monotonic() - started

    judge = Judge.load(folder)
    pairs = judge_pairs(judge, prompts, before, after)
    rate_before, rate_after = target_rates(pairs)
    accuracy_before, accuracy_after = other_accuracies(pairs)
    figures = Figures(
        base_model=BASE_MODEL,
        erased_model=erased_model,
        target_rate_before=round(rate_before, 4),
        target_rate_after=round(rate_after, 4),
        other_accuracy_before=round(accuracy_before, 4),
        other_accuracy_after=round(accuracy_after, 4),
        erase_seconds=round(erasure["finished_at"] - erasure["started_at"], 2),
        images_per_second=round(2 * len(prompts) / drawing_s, 2),
    )
    figures.write(out / "summary.json")
    gallery(pairs).save(out / "gallery.png")
    concepts = [concept.name for concept in presets.load(PRESET)]
    write_report(out / "report.html", figures, pairs, concepts)
    console.print(table(figures, pairs))
    console.print(f"look at {out}/gallery.png and {out}/report.html")
    return figures


@contextlib.contextmanager
def stack(out: Path) -> Iterator[str]:
    """A fresh stack that serves the un-erased base too; gives its address, stops it at the end.

    Raises:
        Misconfigured: another demo runs in this folder.
    """
    data = out / "data"
    if data.exists():
        with only_stack(data / "up.lock"):
            shutil.rmtree(data)
    out.mkdir(parents=True, exist_ok=True)
    # A broker of its own, whatever the environment or a `.env` file says.
    env = os.environ | {"REDIS_URL": broker_url(data / "broker")}
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "cli.main", "up", "--serve-base"]
    with (out / "stack.log").open("wb") as log:
        process = start_child(
            [*command, "--data-dir", data, "--port", str(port)],
            env=env,
            stdout=log,
            stderr=log,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process, out / "stack.log")
            yield url
        finally:
            stop_child(process, grace_s=60)


def _wait_until_ready(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Raises Misconfigured when the stack ends instead, or takes too long."""
    deadline = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz").is_success:
                return
        time.sleep(0.3)
    words = log.read_text().strip().splitlines()
    raise Misconfigured(
        f"the stack did not get ready: {words[-1] if words else 'no word'} ({log})"
    )
