"""The memory of a run is its own, not that of whoever started it."""

import subprocess
import sys

import pytest

from trainer.memory import peak_memory_bytes

MIB = 1 << 20
CHILD = "from trainer.memory import peak_memory_bytes; print(peak_memory_bytes('cpu'))"
PARENT = f"""
import subprocess, sys
held = b"x" * (2000 << 20)
print(subprocess.run(
    [sys.executable, "-c", {CHILD!r}], stdout=subprocess.PIPE, check=True, close_fds=False
).stdout.decode())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only there it is told apart")
def test_the_peak_of_a_large_parent_is_not_a_childs():
    done = subprocess.run(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, check=True, text=True
    )
    assert 10 * MIB < int(done.stdout) < 1500 * MIB


def test_what_is_allocated_shows():
    before = peak_memory_bytes("cpu")
    held = b"x" * (before + 64 * MIB)
    assert peak_memory_bytes("cpu") > before + 32 * MIB
    del held
