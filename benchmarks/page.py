"""What each address of the page costs the service; `make bench-page`, build/bench/page.json.

A real service process over a real broker, with an installation that has something to show: twenty
erased models, hundreds of generations, an erasure with a long history. No worker runs, so nothing
competes for the machine but what else runs on it. Times are the service's own, from its log: from
the request's arrival to the end of its answer. `/healthz`, which does nothing, is what a request
costs at the least.

Every route of the page is asked for; one that nobody asked for ends it. Exits 1, and names them,
if of addresses more than one request in twenty takes over 50 ms. A promotion alone may: it digests
every file of the model, here 64 MiB, and what that takes is shown.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import httpx
from fastapi.routing import APIRoute

from cli.stack.broker import broker_command, broker_url, wait_until_ready
from cli.stack.ports import free_port
from core.edits import Edit
from core.importing import import_base
from core.installation import open_registry
from core.job_store import JobStore
from core.keys import KeyStore
from core.making import describe
from core.manifests import Manifest, ModelStatus
from core.progress import Progress
from core.redis_connection import connect
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.reports import FILENAME, PAGE
from core.settings import SHIPPED_MODELS, Settings
from core.signing import Signer
from core.specs import Concept, ErasureSpec, GenerationSpec, TextualOptions
from core.terms import terms
from service.main import PAGES
from tests.made_reports import report, suite

MODELS = 20
GENERATIONS = 300
HISTORY = 500
ROUNDS = 40
WARM_UP = 2
LIMIT_MS = 50.0
OUT = Path("build/bench/page.json")
HEALTH = "GET /healthz"
REPORT = "GET /v1/models/{model_id}/reports/{report_id}/report.html"
"""Shown in a frame of a model's page."""
PROMOTION = "POST /models/{model_id}/promotion"
EXEMPT = {PROMOTION}
"""Lasts as long as reading the model does, whose every file it digests: no limit can hold."""
WEIGHTS_BYTES = 64 << 20
"""Of the model that is promoted."""
PART = {"HX-Request": "true"}
CANCELS = {
    "generations": "/comparisons/{}/cancellation",
    "erasures": "/erasures/{}/cancellation",
    "evaluations": "/queue/evaluations/{}/cancellation",
}


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        spent = measure(Path(folder))
    floor = median(spent[HEALTH])
    rows = {
        path: {
            "median_ms": round(median(times), 1),
            "p95_ms": round(quantiles(times, n=20)[-1], 1),
            "times_healthz": round(median(times) / floor, 1),
        }
        for path, times in spent.items()
    }
    load = os.getloadavg()[0]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"load": load, "rounds": ROUNDS, "routes": rows}, indent=2) + "\n")
    over = over_limit(rows)
    print(f"{'load ' + format(load, '.1f'):<64}{'median ms':>10}{'p95 ms':>9}{'x healthz':>11}")
    for path, row in rows.items():
        late = "  over the limit" if path in over else ""
        figures = f"{row['median_ms']:>10}{row['p95_ms']:>9}{row['times_healthz']:>11}"
        print(f"{path:<64}{figures}{late}")
    if load > (cores := os.cpu_count() or 1):
        print(
            f"{cores} cores with a load of {load:.1f}: much of these times is waiting for a core"
        )
    if over:
        sys.exit(f"over {LIMIT_MS:.0f} ms of server time: {', '.join(over)}")


def over_limit(rows: dict[str, dict[str, float]]) -> list[str]:
    """The addresses of which more than one request in twenty is over the limit."""
    return [path for path, row in rows.items() if path not in EXEMPT and row["p95_ms"] > LIMIT_MS]


def measure(folder: Path) -> dict[str, list[float]]:
    """Route -> milliseconds, of all that the page has.

    Raises:
        SystemExit: a route that nobody asked for.
    """
    socket = folder / "broker"
    socket.mkdir(mode=0o700)
    broker = subprocess.Popen(broker_command(socket), stdout=subprocess.DEVNULL)
    url = broker_url(socket)
    settings = Settings(_env_file=None, redis_url=url, data_dir=folder / "data")
    try:
        wait_until_ready(url, within_s=20)
        model = furnish_models(settings)
        drawn, erasure = furnish_jobs(settings, model)
        with connect(url) as redis:
            _, key = KeyStore(redis).create(scopes=["admin"])
        log = ask(settings, Visitor(model, drawn, erasure, key))
    finally:
        broker.terminate()
        broker.wait()
    times = spent(log, routes())
    if unasked := [route for route, some in times.items() if len(some) < ROUNDS]:
        sys.exit(f"not measured: {', '.join(unasked)}")
    return times


def routes() -> list[str]:
    """Those of the page, from the routers themselves, and what its frames and floor are."""
    found = [
        f"{method} {route.path}"
        for part in PAGES
        for route in part.router.routes
        if isinstance(route, APIRoute)
        for method in sorted(route.methods)
    ]
    return [HEALTH, REPORT, *found]


@dataclass(frozen=True)
class Visitor:
    """Asks for everything that the page has."""

    model: str
    drawn: list[str]
    erasure: str
    key: str

    def visit(self, client: httpx.Client) -> None:
        for path in (
            *("/healthz", "/login", "/static/page.css", f"/?jobs={'.'.join(self.drawn[:6])}"),
            *(f"/comparisons/{self.drawn[0]}", "/queue", "/models", f"/models/{self.model}"),
            *("/erasures", "/erasures/concept", f"/erasures/{self.erasure}"),
            f"/erasures/{self.erasure}/state",
            f"/v1/models/{self.model}/reports/made/report.html",
        ):
            client.get(path).raise_for_status()
        self.order(client)
        self.cancel(client)

    def order(self, client: httpx.Client) -> None:
        model = f"/models/{self.model}"
        drawing = {"models": [self.model, "emoji"], "prompt": "a cat"}
        for path, form in (
            ("/comparisons", drawing | {"steps": "20", "guidance": "5"}),
            ("/erasures", {"base_model": "emoji", "preset": "weapons"}),
            (f"{model}/evaluation", {"at_most": "4"}),
            (f"{model}/retirement", {"reason": "bench"}),
            (f"{model}/promotion", {"reason": "bench"}),
            ("/models/default", {"model": self.model}),
            ("/models/default/rollback", {}),
            ("/login", {"key": self.key}),
            ("/logout", {}),
        ):
            answer = client.post(path, data=form, headers=PART if "log" not in path else {})
            assert answer.is_success or answer.is_redirect, (path, answer.text)
        client.get(f"{model}/measuring", headers=PART).raise_for_status()
        client.cookies.clear()

    def cancel(self, client: httpx.Client) -> None:
        """What was ordered, so that the queue stays as long as it is."""
        bodies: dict[str, dict[str, str]] = {
            "generations": {"prompt": "a cat", "model": "emoji"},
            "erasures": {"base_model": "emoji", "preset": "weapons"},
            "evaluations": {"model": self.model},
        }
        for noun, body in bodies.items():
            accepted = client.post(f"/v1/{noun}", json=body).raise_for_status().json()["id"]
            address = f"/queue/{noun}/{accepted}/cancellation"
            client.post(address, headers=PART).raise_for_status()
            newest = client.get(f"/v1/{noun}?limit=3").raise_for_status().json()["data"]
            waiting = [one["id"] for one in newest if one["state"] == "queued"]
            for job_id in waiting:
                client.post(CANCELS[noun].format(job_id), headers=PART).raise_for_status()


def ask(settings: Settings, visitor: Visitor) -> str:
    """What a service logged that was visited, once it was warm."""
    port = free_port("127.0.0.1")
    log = settings.data_dir / "service.log"
    environment = {
        "REDIS_URL": settings.redis_url or "",
        "TRCE_DATA_DIR": str(settings.data_dir),
        "TRCE_PORT": str(port),
        "TRCE_SERVE_UNERASED_BASE": "true",
    }
    with log.open("wb") as output:
        command = [sys.executable, "-m", "service"]
        service = subprocess.Popen(command, env=os.environ | environment, stderr=output)
    transport = httpx.HTTPTransport(retries=20)
    headers = {"Authorization": f"Bearer {visitor.key}"}
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url, transport=transport, headers=headers) as client:
        for _ in range(WARM_UP):
            visitor.visit(client)
        begin = log.stat().st_size
        for _ in range(ROUNDS):
            visitor.visit(client)
    service.terminate()
    service.wait()
    return log.read_bytes()[begin:].decode()


def spent(log: str, names: Sequence[str]) -> dict[str, list[float]]:
    """What the log says; it leaves queries out. Of two routes that fit, the first counts."""
    shapes = {name: re.compile(re.sub(r"\{\w+\}", "[^/]+", name)) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for line in log.splitlines():
        entry = json.loads(line)
        if entry["event"] == "request":
            asked = f"{entry['method']} {entry['path']}"
            name = next((name for name, shape in shapes.items() if shape.fullmatch(asked)), None)
            if name is not None:
                times[name].append(entry["ms"])
    return times


def furnish_models(settings: Settings) -> str:
    """Erased models whose weights are words: nobody here loads them. The id of the last."""
    signer = Signer.load_or_create(settings.keys_dir)
    registry = open_registry(settings)
    base = import_base(SHIPPED_MODELS / "emoji", "emoji", registry, signer)
    for number in range(MODELS):
        made = add_erased(registry, base, f"emoji-without-{number}", signer)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.joinpath(FILENAME).write_text(
            report(made, suite(), suite("ordinary")).model_dump_json()
        )
        path.joinpath(PAGE).write_text("<!doctype html>" + "x" * 500_000)
        Registrar(registry).add_report(made.id, "made", path, signer)
    return made.id


def add_erased(registry: ModelRegistry, base: Manifest, model_id: str, signer: Signer) -> Manifest:
    folder = registry.making.begin(model_id)
    weights = os.urandom(WEIGHTS_BYTES) if model_id.endswith(f"-{MODELS - 1}") else b"words"
    (folder / "weights.safetensors").write_bytes(weights)
    words = [f"word {number}" for number in range(30)]
    edit = Edit(
        base_model=base.id,
        base_digest=base.content_digest,
        method="trce",
        concepts=tuple(Concept(name=word, replacement="flower") for word in words),
        textual=TextualOptions(),
        seed=0,
        seconds=1,
    )
    manifest = describe(
        folder,
        model_id=model_id,
        family=base.family,
        drawing=base.drawing,
        code_version="bench",
        edit=edit,
        status=ModelStatus.SERVING,
    )
    return Registrar(registry).add(manifest, folder, signer)


def furnish_jobs(settings: Settings, model: str) -> tuple[list[str], str]:
    """Generations that are drawn, and some that wait; an erasure that runs."""
    with connect(settings.redis_url or "") as client:
        jobs = JobStore(client, terms(settings))
        ids = [uuid.uuid4().hex for _ in range(GENERATIONS)]
        spec = GenerationSpec(prompt="a cat", model=model, width=64, height=64, seed=7)
        for job_id in ids:
            jobs.submit(job_id, spec, queue_class=model)
        drawn = []
        for _ in range(GENERATIONS // 2):
            (lease,) = jobs.leasing.claim(
                "generation", "w-0@bench", slots=1, lease_s=3600, idle=True
            )
            image = {"key": "x/0.png", "seed": 7}
            jobs.leasing.succeed(lease, {"model": model, "images": [image]})
            drawn.append(lease.job_id)
        erasure = uuid.uuid4().hex
        asked = ErasureSpec(base_model="emoji", preset="weapons")
        jobs.submit(erasure, asked, queue_class="emoji")
        (lease,) = jobs.leasing.claim("erasure", "w-1@bench", slots=1, lease_s=3600, idle=True)
        for step in range(HISTORY):
            figures = {"prompted": 1 / (step + 1), "unprompted": 1.0, "anchored": 0.5}
            told = Progress(stage="steering", done=step, total=HISTORY, figures=figures)
            jobs.leasing.report(lease, told)
    return drawn, erasure


if __name__ == "__main__":
    main()
