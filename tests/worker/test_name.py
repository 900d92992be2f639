"""Two workers of one name would take each other's jobs."""

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from core.errors import Misconfigured
from core.redis_connection import connect
from core.settings import Settings
from core.workers import WorkerRoll
from worker.name import held, look_for_namesake

OWNER = "inference-0@here"


def test_a_second_worker_of_a_name_does_not_start_and_says_which_is_the_first(tmp_path):
    with (
        held(tmp_path, OWNER),
        pytest.raises(Misconfigured, match=rf"process {os.getpid()} is inference-0@here already"),
        held(tmp_path, OWNER),
    ):
        pass


def test_other_names_and_later_lives_are_free(tmp_path):
    with held(tmp_path, OWNER), held(tmp_path, "inference-1@here"):
        pass
    with held(tmp_path, OWNER):
        pass


def test_a_killed_worker_keeps_its_name_from_nobody_though_its_child_lives_on(tmp_path):
    """The child: what Celery spawns, and all that was started by it."""
    code = (
        "import os, pathlib, subprocess, sys\n"
        "from worker.name import held\n"
        f"with held(pathlib.Path(sys.argv[1]), {OWNER!r}):\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'input()'])\n"
        "    print(child.pid, flush=True)\n"
        "    input()\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with worker:
        child = int(worker.stdout.readline())
        with pytest.raises(Misconfigured, match=f"process {worker.pid}"), held(tmp_path, OWNER):
            pass
        worker.kill()
        worker.wait()
        os.kill(child, 0)
        with held(tmp_path, OWNER):
            pass


class TestElsewhere:
    """On a host, or in a container, that has the same name and another run folder."""

    @pytest.fixture
    def settings(self, redis_url, tmp_path):
        return Settings(_env_file=None, redis_url=redis_url, data_dir=tmp_path)

    @pytest.fixture
    def beat(self, redis_url):
        """Once; or again and again, until the test ends."""
        stopped = threading.Event()
        with connect(redis_url) as client:
            roll = WorkerRoll(client)

            def again() -> None:
                while not stopped.wait(0.2):
                    roll.beat(OWNER)

            thread = threading.Thread(target=again)

            def begin(*, lives: bool) -> None:
                roll.beat(OWNER)
                if lives:
                    thread.start()

            yield begin
            stopped.set()
            if thread.ident is not None:
                thread.join()

    def test_a_second_worker_of_a_name_does_not_start(self, settings, beat):
        beat(lives=True)
        with pytest.raises(Misconfigured, match=f"another worker is {OWNER}.* --name"):
            look_for_namesake(settings, OWNER)

    def test_an_earlier_life_that_beat_a_moment_ago_is_none(self, settings, beat):
        beat(lives=False)
        look_for_namesake(settings, OWNER)

    def test_nobody_waits_where_none_has_beaten_lately(self, settings, redis_url):
        look_for_namesake(settings, OWNER)
        with connect(redis_url) as client:
            WorkerRoll(client, now=lambda: time.time() - 60).beat(OWNER)
        began_s = time.monotonic()
        look_for_namesake(settings, OWNER)
        assert time.monotonic() - began_s < 1

    def test_nor_while_redis_is_away(self, tmp_path):
        away = Settings(_env_file=None, redis_url="redis://127.0.0.1:1", data_dir=tmp_path)
        look_for_namesake(away, OWNER)


def test_a_worker_says_so_before_it_touches_anything_of_the_first(tmp_path):
    owner, run_dir = f"inference-0@{socket.gethostname()}", tmp_path / "run"
    with held(run_dir, owner):
        (run_dir / f"{owner}.draining").touch()
        done = subprocess.run(
            [sys.executable, "-m", "worker", "inference"],
            env=os.environ | {"TRCE_DATA_DIR": str(tmp_path), "REDIS_URL": "redis://127.0.0.1:1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    assert done.returncode == 1
    assert f"cannot start: process {os.getpid()} is {owner} already" in done.stderr
    assert (run_dir / f"{owner}.draining").exists()
