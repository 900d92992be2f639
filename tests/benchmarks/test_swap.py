"""A swap is measured as workers swap."""

import json
import os
import subprocess
import sys

from benchmarks.serving import swap
from benchmarks.stack import worker_environment
from cli.stack.up import environment
from core.settings import Settings
from worker import huge_pages

LOOK = "import os, torch; print(torch.get_num_threads(), os.environ['GLIBC_TUNABLES'])"


def test_a_process_that_computes_as_a_worker_has_its_threads_and_pages(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    workers = environment(Settings())
    huge_pages.ask(workers)
    told = worker_environment()
    assert {name: told[name] for name in ("OMP_NUM_THREADS", "GLIBC_TUNABLES")} == {
        name: workers[name] for name in ("OMP_NUM_THREADS", "GLIBC_TUNABLES")
    }

    said = subprocess.run(
        [sys.executable, "-c", LOOK], env=told, stdout=subprocess.PIPE, check=True
    )
    assert said.stdout.decode().split() == ["1", "glibc.malloc.hugetlb=1"]


def test_a_swap_is_measured_in_such_a_process(monkeypatch):
    started = []
    result = {"swap_copy_ratio": 1.3, "detail": {"threads": 1}}

    def run(command, *, env, **_):
        started.append((command, env))
        return subprocess.CompletedProcess(command, 0, stdout=json.dumps(result).encode())

    monkeypatch.setattr(subprocess, "run", run)

    assert swap.measure() == result
    [(command, env)] = started
    assert command[1:] == ["-m", "benchmarks.serving.swap"]
    assert env == worker_environment(1)
    assert env["PATH"] == os.environ["PATH"]
