"""A blow is over when all that dies of it is dead."""

import random
import subprocess
import sys

import psutil

from tests.chaos.faults import Nemesis, is_gone

FAMILY = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(0.5)"])
print(child.pid, flush=True)
child.wait()
"""


def test_a_kill_waits_for_those_who_outlive_their_parent_by_a_moment():
    with subprocess.Popen([sys.executable, "-c", FAMILY], stdout=subprocess.PIPE) as parent:
        child = psutil.Process(int(parent.stdout.readline()))
        Nemesis(None, random.Random(0))._kill([psutil.Process(parent.pid)])

        assert is_gone(child)
