"""Fixtures that several rooms share: a real broker, keys, stores."""

import contextlib
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from cli.stack.broker import broker_command, broker_url, wait_until_ready
from core.job_store import JobStore
from core.redis_connection import connect
from core.settings import Settings
from core.terms import terms


class BrokerProcess:
    """The embedded broker on a folder of its own; can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = broker_url(folder)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = broker_command(self.folder)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_until_ready(self.url, within_s=20)

    def kill(self) -> None:
        """As kill -9 does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """It keeps its connections, takes what it is sent, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@pytest.fixture(autouse=True)
def _own_user_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No test writes to the home of whoever runs it, or finds what another one kept."""
    folder = tmp_path_factory.getbasetemp() / f"user-cache-{uuid.uuid4().hex}"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))


@pytest.fixture(scope="session")
def broker() -> Iterator[BrokerProcess]:
    """One for the whole run: whoever kills it starts it again."""
    # Not tmp_path: a unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        process = BrokerProcess(Path(folder))
        process.start()
        yield process
        with contextlib.suppress(ProcessLookupError):
            process.kill()


@pytest.fixture
def redis_url(broker: BrokerProcess) -> str:
    """An empty database."""
    with redis.Redis.from_url(broker.url) as client:
        client.flushall()
    return broker.url


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    return Settings(_env_file=None, redis_url=redis_url, data_dir=tmp_path / "data")


@pytest.fixture
def jobs(settings: Settings) -> Iterator[JobStore]:
    assert settings.redis_url is not None
    with connect(settings.redis_url) as client:
        yield JobStore(client, terms(settings))
