"""`trce doctor`: looks at everything that an installation stands on, and names each fix."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.text import Text

from cli.answers import Json, answer
from cli.stack.borrowed import borrowed_redis
from core.checkup.broker import check_broker
from core.checkup.check import Check, ok, problem, warning
from core.checkup.folder import check_folder, check_keys, check_models
from core.checkup.names import check_names
from core.checkup.pictures import check_pictures
from core.checkup.port import check_port
from core.errors import AppError
from core.explaining import explain
from core.installation import open_pictures
from core.settings import Settings

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(
    data_dir: Annotated[
        Path | None, typer.Option(help="The installation's data folder; `data` if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check GPU, torch, Redis, storage, keys, models, port, clock and settings.

    Exits with 1 when something is wrong that would stop the service or lose what it accepted.
    """
    checks = examine(data_dir)
    lines = Text("\n").join(map(_line, checks))
    answer(lines, [one.model_dump() for one in checks], as_json=as_json)
    if any(one.state == "problem" for one in checks):
        sys.exit(1)


def examine(data_dir: Path | None = None) -> list[Check]:
    """Every check, each made even if another failed."""
    try:
        settings = Settings() if data_dir is None else Settings(data_dir=data_dir)
    except ValidationError as error:
        fix = "see .env.example"
        return [check_names(), *(problem("settings", line, fix) for line in explain(error))]
    return [
        check_names(),
        check_torch(settings.device),
        check_driver(settings.device),
        *check_folder(settings.data_dir),
        *_redis(settings),
        _pictures(settings),
        check_keys(settings),
        check_models(settings),
        check_port(settings.host, settings.port),
    ]


def check_torch(device: str) -> Check:
    """In a process of its own: importing torch takes seconds and memory."""
    if find_spec("torch") is None:
        return warning("torch", "not installed here", "workers need it; the service does not")
    code = (
        "import json, torch; print(json.dumps([torch.__version__, torch.version.cuda, "
        "torch.cuda.is_available() and torch.cuda.get_device_name()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it died"])[-1]
        return problem("torch", f"cannot be imported: {last}", "install it anew: `make install`")
    version, cuda, gpu = json.loads(done.stdout)
    build = f"torch {version}, " + (f"built for CUDA {cuda}" if cuda else "built for CPUs")
    if gpu:
        return ok("torch", f"{build}, sees {gpu}")
    if not device.startswith("cuda"):
        return ok("torch", f"{build}; draws on the CPU")
    if not cuda:
        return problem(
            "torch", f"{build}, and TRCE_DEVICE={device}", "install a CUDA build of torch"
        )
    return problem(
        "torch",
        f"{build}, sees no GPU, and TRCE_DEVICE={device}",
        "update the NVIDIA driver (`nvidia-smi` tells its CUDA version), or, in a container, "
        "install the NVIDIA container toolkit",
    )


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


def _redis(settings: Settings) -> list[Check]:
    """The one of REDIS_URL; without it the embedded one, started for the moment."""
    try:
        with borrowed_redis(settings) as client:
            return check_broker(client)
    except (AppError, OSError) as error:
        return [problem("redis", str(error), "set REDIS_URL, or see the data folder")]


def _pictures(settings: Settings) -> Check:
    try:
        return check_pictures(open_pictures(settings))
    except AppError as error:
        return problem("picture store", str(error), "see the TRCE_S3_ settings")


def _line(one: Check) -> Text:
    line = Text.assemble((f"{one.state:<8}", COLOURS[one.state]), f" {one.name}: {one.found}")
    if one.fix:
        line.append(f"\n{'':<9}fix: {one.fix}")
    return line
