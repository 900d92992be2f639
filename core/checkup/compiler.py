"""What `torch.compile` needs: a C++ compiler for a CPU, Triton for a GPU."""

import os
import subprocess
import sys

from core.checkup.check import Check, ok, problem

PROBE = """
import torch
device = {device!r}
if device == "auto":
    device = "cuda" if torch.cuda.is_available() else "cpu"
torch.compile(lambda x: x * 2 + 1)(torch.ones(8, device=device))
"""


def check_compiler(device: str) -> Check:
    """Compile a line of arithmetic, in a process of its own: nothing else says that it works."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(device=device)],
        # What it compiled before would hide that the compiler is gone.
        env=os.environ | {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return ok("torch.compile", "works")
    said = [line for line in done.stderr.splitlines() if "Error" in line or "Exception" in line]
    return problem(
        "torch.compile",
        f"fails: {said[-1].strip() if said else 'it died'}",
        "install a C++ compiler (g++) for a CPU, or Triton and a compiler for a GPU (containers: "
        "TRCE_PACKAGES=g++ and deploy/compose.compile.yml), or set TRCE_COMPILE_UNET=false",
    )
