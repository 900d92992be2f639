"""The real service over a real Redis-protocol server; tests play the worker themselves."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from core.job_store import JobStore
from core.keys import KeyStore
from core.manifests import ModelStatus
from core.redis_connection import connect
from core.settings import Settings
from service.main import create_app
from service.wiring import Parts
from tests.service.scenery import APPLE, Installation, Worker, eventually

Serve = Callable[..., TestClient]


@pytest.fixture(scope="session")
def master_copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of an installation, made once: writing models safely takes its time."""
    folder = tmp_path_factory.mktemp("installation")
    made = Installation(folder)
    base = made.add_base("raw")
    made.add_erased("safe", base=base)
    made.add_erased("waiting", base=base, status=ModelStatus.CANDIDATE)
    made.add_erased("old", base=base, status=ModelStatus.RETIRED)
    made.add_erased("forged", base=base, status=ModelStatus.RETIRED)
    made.tamper_with("forged")
    return folder


@pytest.fixture
def installation(master_copy: Path, settings: Settings) -> Installation:
    """`safe` is served, `waiting` a candidate, `old` retired, `raw` the base, `forged` a lie."""
    shutil.copytree(master_copy, settings.data_dir)
    return Installation(settings.data_dir)


@pytest.fixture(autouse=True)
def _nothing_is_noticed_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a test that takes long finds an entry more in the audit trail."""
    monkeypatch.setattr("service.refused_models.LOOK_EVERY_S", 3600.0)


@pytest.fixture
def serve(installation: Installation, settings: Settings) -> Iterator[Serve]:
    """Start the service with some settings changed."""
    with ExitStack() as running:

        def start(**changes: Any) -> TestClient:
            changed = settings.model_copy(update={"default_model": "safe"} | changes)
            app = create_app(changed)
            return running.enter_context(TestClient(app, base_url="http://localhost"))

        yield start


@pytest.fixture
def client(serve: Serve) -> TestClient:
    return serve()


@pytest.fixture
def parts(client: TestClient) -> Parts:
    return client.app.state.parts


@pytest.fixture
def queue(parts: Parts) -> JobStore:
    """The job store, to see what a request left in it."""
    return parts.jobs


@pytest.fixture
def worker(parts: Parts) -> Worker:
    return Worker(parts)


@pytest.fixture
def generation(client: TestClient) -> dict[str, Any]:
    """One that waits in the queue."""
    return client.post("/v1/generations", json=APPLE).json()


@pytest.fixture
def keys(settings, client):
    with connect(settings.redis_url) as redis:
        yield KeyStore(redis)


@pytest.fixture
def bearer(keys):
    """The headers of a new key."""

    def make(*scopes: str, tenant: str = "acme", **fields) -> dict[str, str]:
        _, token = keys.create(scopes=scopes or ["generate"], tenant=tenant, **fields)
        return {"Authorization": f"Bearer {token}"}

    return make


@pytest.fixture
def service_log(tmp_path) -> Path:
    """What the processes write: a file, since a pipe that nobody reads stops them when full."""
    return tmp_path / "service.log"


@pytest.fixture
def start(installation, settings, service_log):
    """Start the process, with some settings of its own; returns its address and itself."""
    started = []

    def start(**environment: str) -> tuple[str, "subprocess.Popen[bytes]"]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with service_log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "service"],
                env=os.environ
                | {
                    "REDIS_URL": settings.redis_url,
                    "TRCE_DATA_DIR": str(settings.data_dir),
                    "TRCE_DEFAULT_MODEL": "safe",
                    "TRCE_MAX_BODY_BYTES": "1000",
                    "TRCE_PORT": str(port),
                }
                | environment,
                stderr=log,
            )
        started.append(process)
        address = f"http://127.0.0.1:{port}"
        eventually(lambda: _answers(address), within_s=30)
        return address, process

    yield start
    for process in started:
        process.kill()
        process.wait()


def _answers(address):
    try:
        return httpx.get(f"{address}/healthz").status_code == 200
    except httpx.TransportError:
        return False
