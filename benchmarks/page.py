"""What each address of the page costs the service; `make bench-page`, build/bench/page.json.

A real service process over a real broker, with an installation that has something to show: twenty
erased models, hundreds of generations, an erasure with a long history. No worker runs, so nothing
competes for the machine but what else runs on it. Times are the service's own, from its log: from
the request's arrival to the end of its answer. `/healthz`, which does nothing, is what a request
costs at the least.

Exits 1, and names them, if addresses take more than 50 ms.
"""

import json
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from statistics import median, quantiles

import httpx

from cli.stack.broker import broker_command, broker_url, wait_until_ready
from cli.stack.ports import free_port
from core.importing import import_base
from core.installation import open_registry
from core.job_store import JobStore
from core.making import describe
from core.manifests import Edit, Manifest, ModelStatus
from core.progress import Progress
from core.redis_connection import connect
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.settings import SHIPPED_MODELS, Settings
from core.signing import Signer
from core.specs import Concept, ErasureSpec, GenerationSpec, TextualOptions
from core.terms import terms

MODELS = 20
GENERATIONS = 300
HISTORY = 500
ROUNDS = 40
LIMIT_MS = 50.0
OUT = Path("build/bench/page.json")
HEALTH = "/healthz"


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
    print(f"{'load ' + format(load, '.1f'):<44}{'median ms':>10}{'p95 ms':>9}{'x healthz':>11}")
    for path, row in rows.items():
        late = "  over the limit" if path in over else ""
        figures = f"{row['median_ms']:>10}{row['p95_ms']:>9}{row['times_healthz']:>11}"
        print(f"{path:<44}{figures}{late}")
    if over:
        sys.exit(f"over {LIMIT_MS:.0f} ms of server time: {', '.join(over)}")


def over_limit(rows: dict[str, dict[str, float]]) -> list[str]:
    """The addresses whose median is over the limit."""
    return [path for path, row in rows.items() if row["median_ms"] > LIMIT_MS]


def measure(folder: Path) -> dict[str, list[float]]:
    """Address, with ids left out -> milliseconds."""
    socket = folder / "broker"
    socket.mkdir(mode=0o700)
    broker = subprocess.Popen(broker_command(socket), stdout=subprocess.DEVNULL)
    url = broker_url(socket)
    settings = Settings(_env_file=None, redis_url=url, data_dir=folder / "data")
    try:
        wait_until_ready(url, within_s=20)
        model = furnish_models(settings)
        drawn, erasure = furnish_jobs(settings, model)
        paths = {
            HEALTH: HEALTH,
            "/login": "/login",
            "/static/page.css": "/static/page.css",
            "/ (with six pictures)": f"/?jobs={'.'.join(drawn[:6])}",
            "/comparisons/{id}": f"/comparisons/{drawn[0]}",
            "/erasures": "/erasures",
            "/erasures/{id}": f"/erasures/{erasure}",
            "/erasures/{id}/state": f"/erasures/{erasure}/state",
            "/models": "/models",
            "/models/{id}": f"/models/{model}",
            "/queue": "/queue",
        }
        return ask(settings, paths, model)
    finally:
        broker.terminate()
        broker.wait()


def ask(settings: Settings, paths: dict[str, str], model: str) -> dict[str, list[float]]:
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
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=transport) as client:
        order = {"models": [model, "emoji"], "prompt": "a cat", "steps": "20", "guidance": "5"}
        for _ in range(ROUNDS):
            for path in paths.values():
                client.get(path).raise_for_status()
            client.post("/comparisons", data=order, headers={"HX-Request": "1"}).raise_for_status()
            client.post(f"/models/{model}/retirement", data={"reason": "bench"})
            client.post(f"/models/{model}/promotion", data={"reason": "bench"})
    service.terminate()
    service.wait()
    orders = {
        "POST /comparisons": "/comparisons",
        "POST /models/{id}/retirement": f"/models/{model}/retirement",
        "POST /models/{id}/promotion": f"/models/{model}/promotion",
    }
    return spent(log, paths | orders)


def spent(log: Path, paths: dict[str, str]) -> dict[str, list[float]]:
    """What the log says; it leaves queries out."""
    names = {path.partition("?")[0]: name for name, path in paths.items()}
    times: dict[str, list[float]] = {name: [] for name in paths}
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] == "request" and entry["path"] in names:
            times[names[entry["path"]]].append(entry["ms"])
    return times


def furnish_models(settings: Settings) -> str:
    """Erased models whose weights are words: nobody here loads them. The id of the last."""
    signer = Signer.load_or_create(settings.keys_dir)
    registry = open_registry(settings)
    base = import_base(SHIPPED_MODELS / "emoji", "emoji", registry, signer)
    for number in range(MODELS):
        made = add_erased(registry, base, f"emoji-without-{number}", signer)
    return made.id


def add_erased(registry: ModelRegistry, base: Manifest, model_id: str, signer: Signer) -> Manifest:
    folder = registry.making.begin(model_id)
    (folder / "weights.safetensors").write_text(model_id)
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
