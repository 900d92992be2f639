"""The GPU: whether torch sees the one that is asked for, and what its driver says."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec

from core.checkup.check import Check, ok, problem, warning


def has_torch() -> bool:
    """Not so in the image of the service."""
    return find_spec("torch") is not None


def check_torch(device: str, *, gpus_needed: int = 1) -> Check:
    """In a process of its own: importing torch takes seconds and memory."""
    if not has_torch():
        return warning(
            "torch",
            "neither it nor the GPU was looked at: it is not installed here",
            "ask where workers run, with compose by `docker compose exec trainer trce doctor`",
        )
    code = (
        "import json, torch; print(json.dumps([torch.__version__, torch.version.cuda, "
        "[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        why = (done.stderr.strip().splitlines() or ["it died"])[-1]
        return problem("torch", f"cannot be imported: {why}", "install it anew: `make install`")
    version, cuda, gpus = json.loads(done.stdout)
    build = f"torch {version}, " + (f"built for CUDA {cuda}" if cuda else "built for CPUs")
    named = device.partition(":")[2]
    last = int(named) if named.isdigit() else gpus_needed - 1
    if device != "cpu" and gpus and last >= len(gpus):
        fix = (
            f"set TRCE_DEVICE to one from cuda:0 to cuda:{len(gpus) - 1}"
            if named
            else f"set TRCE_TRAINER_PROCESSES={len(gpus)}"
        )
        return problem("torch", f"{build}, sees {len(gpus)} GPUs, and no cuda:{last}", fix)
    if gpus:
        return ok("torch", f"{build}, sees {', '.join(gpus)}")
    if not device.startswith("cuda"):
        return ok("torch", f"{build}; draws on the CPU")
    fix = (
        "update the NVIDIA driver (`nvidia-smi` tells its CUDA version), or, in a container, "
        "install the NVIDIA container toolkit"
        if cuda
        else "install a CUDA build of torch"
    )
    return problem("torch", f"{build}, sees no GPU, and TRCE_DEVICE={device}", fix)


def sees_gpus() -> bool:
    """Does torch see any? In a process of its own, as above."""
    code = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def check_driver(device: str) -> Check:
    """What `nvidia-smi` says."""
    wanted = device.startswith("cuda")
    if shutil.which("nvidia-smi") is None:
        if wanted:
            fix = "install the NVIDIA driver, or set TRCE_DEVICE=cpu"
            return problem("GPU driver", "there is none", fix)
        return ok("GPU driver", "none, and none is asked for")
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total,memory.free"]
    done = subprocess.run(
        [*command, "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        said = (done.stdout or done.stderr).strip().splitlines()
        return (problem if wanted else warning)(
            "GPU driver",
            said[0] if said else "nvidia-smi fails",
            "reinstall the NVIDIA driver and reboot: module and library must be of one version",
        )
    return ok("GPU driver", "; ".join(done.stdout.strip().splitlines()))
