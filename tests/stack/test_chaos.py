"""About a minute of everything going wrong; `make chaos` is the long version."""

import sys
import tempfile
from pathlib import Path

import pytest

from tests.chaos.goals import Goals
from tests.chaos.report import summary, table
from tests.chaos.run import run

pytestmark = pytest.mark.stack

COUNTS = {
    "pool child killed": 2,
    "worker killed": 2,
    "training killed": 1,
    "broker killed": 2,
    "service killed": 1,
    "worker frozen": 1,
    "broker frozen": 1,
    "wakes dropped": 2,
    "network cut": 1,
    "disk filled": 1,
    "everything killed": 1,
}
GOALS = Goals(jobs=300, erasures=1, faults=COUNTS, minutes=0.75)


def test_nothing_is_lost_and_nothing_is_doubled_whatever_is_killed():
    # Not tmp_path: a unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        done = run(Path(folder), seed=7, goals=GOALS, tell=lambda _: None)
    sys.stdout.write(table(done))

    assert done.verdict.complaints() == []
    assert summary(done)["jobs"] >= 300
    assert summary(done)["erasures"] >= 1
    assert len(done.faults) >= 8
