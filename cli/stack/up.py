"""Bring the whole service up on this machine, and down again."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import structlog
from pydantic import SecretStr

from cli.stack.broker import broker_command, broker_url, wait_until_ready
from cli.stack.lock import only_stack
from cli.stack.ports import check_stack_ports, free_port, metrics_ports, worker_names
from cli.stack.supervisor import Member, Supervisor, on_stop_signals
from cli.stack.worker_count import count_gpus, inference_workers
from core.checkup.broker import check_broker
from core.checkup.check import Check, insist, problem
from core.checkup.compiler import check_compiler
from core.checkup.device import check_driver, check_torch, has_torch, sees_gpus
from core.checkup.folder import check_folder
from core.checkup.names import check_names
from core.checkup.pictures import check_pictures
from core.errors import AppError
from core.importing import import_base
from core.installation import open_pictures, open_registry
from core.key_folder import KeyFolder
from core.object_storage import BucketStorage
from core.redis_connection import connect
from core.settings import SHIPPED_MODELS, Settings
from core.signing import Signer
from core.startup import WRITTEN_BY_ANY

log = structlog.get_logger()

BROKER_START_S = 30.0
DRAIN_GRACE_S = 15.0
"""More than a worker takes to finish or hand back what it holds (worker/runtime.py: DRAIN_S)."""


def run_stack(settings: Settings, *, on_start: Callable[[Settings], None]) -> None:
    """Run until SIGINT or SIGTERM. `on_start` is called once every process has been started.

    Raises:
        Misconfigured: another stack uses the data folder, the port is taken, there is no broker,
            no GPU where one is asked for ...
    """
    insist([check_names(), *check_folder(settings.data_dir, ("logs", *WRITTEN_BY_ANY))])
    insist(check_device(settings))
    settings = on_devices_seen(settings)
    with only_stack(settings.data_dir / "up.lock"):
        # First: importing the shipped model may put it into the bucket.
        insist([prepare_pictures(settings)])
        settings = prepare(settings)
        supervisor = Supervisor()
        with on_stop_signals(supervisor.ask_to_stop):
            try:
                _start(supervisor, settings)
                on_start(settings)
                supervisor.run()
            finally:
                supervisor.stop()


def check_device(settings: Settings) -> list[Check]:
    """What the workers would find at their own start, in their logs and again and again."""
    if not has_torch() and inference_workers(settings) + settings.trainer_workers:
        return [problem("torch", "it is not installed, and workers need it", "`make install`")]
    checks = []
    if settings.device.startswith("cuda"):
        gpus = settings.trainer_processes if settings.trainer_workers else 1
        torch = check_torch(settings.device, gpus_needed=gpus)
        # Where torch sees the GPU it matters to nobody that `nvidia-smi` is not there.
        checks = [torch] if torch.state == "ok" else [torch, check_driver(settings.device)]
    if settings.compile_unet and inference_workers(settings):
        checks.append(check_compiler(settings.device))
    return checks


def on_devices_seen(settings: Settings) -> Settings:
    """On the CPU, where the driver has GPUs and torch, built for CPUs perhaps, sees none.

    Workers draw there whatever they are told, but there would be one for each of the GPUs.
    """
    counted = settings.device == "auto" and settings.inference_workers is None
    if not counted or not count_gpus(os.environ) or not has_torch() or sees_gpus():
        return settings
    log.warning("torch sees no GPU, the driver does: workers draw on the CPU", see="trce doctor")
    return settings.model_copy(update={"device": "cpu"})


def prepare(settings: Settings) -> Settings:
    """First run: make keys and folders, import the shipped model; choose broker and port.

    Raises:
        Misconfigured.
    """
    signer = Signer.load_or_create(settings.keys_dir)
    Signer.load_or_create(settings.picture_keys_dir)
    registry = open_registry(settings)
    for folder in folders_of_inference(settings):
        folder.mkdir(parents=True, exist_ok=True)
    for shipped in sorted(SHIPPED_MODELS.glob("*/model_index.json")):
        if not registry.path(shipped.parent.name).exists():
            import_base(shipped.parent, shipped.parent.name, registry, signer)
    return settings.model_copy(
        update={
            "port": settings.port or free_port(settings.host),
            "redis_url": settings.redis_url or broker_url(settings.broker_dir),
        }
    )


def folders_of_inference(settings: Settings) -> list[Path]:
    """Of the data folder, what inference workers read or write: containers mount no more of it."""
    keys = KeyFolder(settings.keys_dir)
    return [
        *(settings.models_dir, settings.images_dir, settings.run_dir, settings.footprints_dir),
        *(keys.trusted_folder, keys.revoked_folder, settings.picture_keys_dir),
    ]


def prepare_pictures(settings: Settings) -> Check:
    """Make the bucket if there is to be one, and try the store of pictures."""
    try:
        pictures = open_pictures(settings)
        if isinstance(pictures, BucketStorage):
            pictures.make()
    except AppError as error:
        return problem("picture store", str(error), "see the TRCE_S3_ settings")
    return check_pictures(pictures)


def _start(supervisor: Supervisor, settings: Settings) -> None:
    """Broker first: what needs it may wait for it, but need not."""
    env = environment(settings)
    metrics = metrics_ports(settings)
    assert settings.redis_url is not None
    insist(check_stack_ports(settings))

    def start(name: str, command: list[str], grace_s: float = 10.0) -> None:
        own = {"TRCE_METRICS_PORT": str(metrics.get(name, 0))}
        log_file = settings.logs_dir / f"{name}.log"
        supervisor.start(Member(name, command, env | own, log_file, grace_s))

    if settings.redis_url == broker_url(settings.broker_dir):
        start("broker", broker_command(settings.broker_dir))
    wait_until_ready(settings.redis_url, within_s=BROKER_START_S)
    with connect(settings.redis_url) as client:
        insist(check_broker(client))
    start("service", [sys.executable, "-m", "service"])
    for role, names in worker_names(settings).items():
        for number, name in enumerate(names):
            command = [sys.executable, "-m", "worker", role, "--name", str(number)]
            start(name, command, DRAIN_GRACE_S)


def environment(settings: Settings) -> dict[str, str]:
    """The settings as the environment variables that make them."""
    values = settings.model_dump(exclude_none=True)
    values |= {"data_dir": settings.data_dir.resolve()}
    redis_url = values.pop("redis_url", None)
    env = {f"TRCE_{name.upper()}": _in_clear(value) for name, value in values.items()}
    # One thread each, as a rule: numerical libraries would otherwise take every core.
    env["OMP_NUM_THREADS"] = str(settings.cpu_threads)
    return env | ({"REDIS_URL": redis_url} if redis_url else {})


def _in_clear(value: object) -> str:
    """A secret's own text is asterisks."""
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)
