import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from core.children import start_child, stop_child

SLEEPER = [sys.executable, "-c", "import time; time.sleep(60)"]
DEAF = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    "print('deaf', flush=True); time.sleep(60)",
]


def test_a_child_that_listens_ends_by_sigterm():
    assert stop_child(start_child(SLEEPER), grace_s=10) == -signal.SIGTERM


def test_a_child_that_does_not_listen_is_killed():
    child = start_child(DEAF, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()

    assert stop_child(child, grace_s=0.1) == -signal.SIGKILL
    child.stdout.close()


STARTED_BY_US = f"from core.children import start_child; child = start_child({SLEEPER!r})"
TIES_ITSELF = (
    "from core.children import die_with_parent as tie; tie(); print(); import time; time.sleep(60)"
)
STARTED_BY_OTHERS = (
    "import subprocess, sys;"
    f"child = subprocess.Popen([sys.executable, '-c', {TIES_ITSELF!r}], stdout=subprocess.PIPE);"
    "child.stdout.readline()"
)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
@pytest.mark.parametrize("start", [STARTED_BY_US, STARTED_BY_OTHERS])
def test_a_child_does_not_outlive_its_killed_parent(start):
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"{start}; print(child.pid, flush=True); import time; time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()

    deadline = time.monotonic() + 10
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)
