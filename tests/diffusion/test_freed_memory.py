"""What is freed stays for the next pass, and goes when asked; each in a process of its own."""

import json
import subprocess
import sys

import pytest

MIB = 1 << 20
COUNTED = """
import json, resource, sys
import psutil, torch
from diffusion.freed_memory import keep_for_next_pass, return_to_system
torch.set_num_threads(1)
{before}
def one_pass():
    kept = [torch.ones(2 << 20) for _ in range(16)]
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    one_pass()
began = faults()
for _ in range(5):
    one_pass()
again = faults() - began
held = psutil.Process().memory_info().rss
return_to_system()
print(json.dumps([again, held - psutil.Process().memory_info().rss]))
"""
PAGES_OF_A_PASS = 16 * 8 * MIB // 4096

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc alone is told")


def counted(before: str) -> tuple[int, int]:
    """Page faults of five passes after three, and the bytes that went in the end."""
    code = COUNTED.format(before=before)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    faults, given_back = json.loads(done.stdout)
    return faults, given_back


def test_a_pass_finds_the_memory_of_the_last_one_and_all_of_it_goes_when_asked():
    faults, given_back = counted("keep_for_next_pass()")

    assert faults < PAGES_OF_A_PASS / 100
    assert given_back > 100 * MIB


def test_without_it_every_pass_has_its_pages_cleared_anew():
    faults, _ = counted("")

    assert faults > PAGES_OF_A_PASS
