"""Workers as real processes, whose clock is not that of a real Redis."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from core.checkup.clock import check_clock
from tests.started_worker import refused_start

SHIFT = "import time\nreal = time.time\ntime.time = lambda: real() + {seconds}\n"
BEHIND = "clock: Redis' clock is 60.0 s behind ours"


@pytest.fixture
def environ(tmp_path) -> dict[str, str]:
    """For processes whose clock is a minute ahead, and that of their children."""
    (tmp_path / "sitecustomize.py").write_text(SHIFT.format(seconds=60))
    path = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    return os.environ | {
        "PYTHONPATH": path,
        "TRCE_DATA_DIR": str(tmp_path / "data"),
        "TRCE_DEVICE": "cpu",
    }


@pytest.fixture
def late_broker(broker) -> Iterator[Any]:
    """Not started yet."""
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        process = type(broker)(Path(folder))
        yield process
        process.kill()


@pytest.mark.parametrize("role", ["inference", "trainer"])
def test_a_worker_with_a_wrong_clock_does_not_start(environ, redis_url, role):
    told = refused_start(role, environ | {"REDIS_URL": redis_url})

    assert f"cannot start: {BEHIND}" in told
    assert "chrony" in told


def test_nor_does_it_begin_where_redis_comes_after_it(environ, late_broker, tmp_path):
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "worker", "inference"],
            env=environ | {"REDIS_URL": late_broker.url},
            stderr=log,
            stdout=log,
        )
    try:
        run_dir = tmp_path / "data" / "run"
        # It has looked for Redis in vain, and gone on.
        wait_until(lambda: "Cannot connect" in said(tmp_path), within_s=60)
        late_broker.start()
        wait_until(lambda: "cannot begin" in said(tmp_path), within_s=60)

        assert BEHIND in said(tmp_path)
        assert not list(run_dir.glob("*.alive"))
        with redis.Redis.from_url(late_broker.url) as client:
            assert not client.exists("workers")
    finally:
        worker.terminate()
        worker.wait(30)


def said(folder: Path) -> str:
    return (folder / "log").read_text()


def wait_until(is_so, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


class TestLooking:
    @pytest.fixture
    def client(self, redis_url):
        with redis.Redis.from_url(redis_url, decode_responses=True) as client:
            yield client

    @pytest.mark.parametrize(("ahead_s", "side"), [(5, "behind"), (-5, "ahead of")])
    def test_it_says_by_how_much_and_on_which_side(self, client, ahead_s, side):
        check = check_clock(client, now=lambda: time.time() + ahead_s)

        assert check.state == "problem"
        assert f"5.0 s {side} ours, and 2 s are allowed" in check.found
        assert "chrony" in check.fix

    @pytest.mark.parametrize("ahead_s", [-1.5, 0, 1.5])
    def test_what_the_bound_allows_is_fine(self, client, ahead_s):
        assert check_clock(client, now=lambda: time.time() + ahead_s).state == "ok"

    def test_an_answer_that_takes_long_is_no_wrong_clock(self, client):
        """Between question and answer of each look six seconds pass here, after Redis looked."""
        given = iter([time.time() + seconds for seconds in (0, 6) * 3])

        assert check_clock(client, now=lambda: next(given)).state == "ok"

    def test_the_quickest_of_several_looks_counts(self, client):
        at = time.time()
        given = iter([at, at + 60, at + 10, at + 10, at, at + 60])

        assert "10.0 s behind" in check_clock(client, now=lambda: next(given)).found
