"""What is started with the environment of a worker has its large tensors in huge pages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from worker import huge_pages

LENT = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MIB = 1 << 20
WHAT_IT_HAS = """
import re, torch
kept = torch.ones(16 << 20)
print(re.search(r"AnonHugePages: +(\\d+) kB", open("/proc/self/smaps_rollup").read())[1])
"""


def asks() -> bool:
    """Whether the kernel lends huge pages to who asks, and to nobody else."""
    return LENT.exists() and "[madvise]" in LENT.read_text()


@pytest.mark.skipif(not asks(), reason="the kernel lends no huge pages to who asks")
@pytest.mark.parametrize(("of_operator", "asked"), [({}, True), ({"GLIBC_TUNABLES": ""}, False)])
def test_tensors_lie_in_huge_pages_unless_an_operator_says_otherwise(of_operator, asked):
    inherited = {name: one for name, one in os.environ.items() if name != "GLIBC_TUNABLES"}
    environment = inherited | of_operator
    huge_pages.ask(environment)
    told = subprocess.run(
        [sys.executable, "-c", WHAT_IT_HAS],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert (int(told.stdout) * 1024 > 32 * MIB) is asked
