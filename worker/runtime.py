"""What one worker process is made of, put together once when the process starts."""

from collections.abc import Callable
from typing import Literal

import torch

from core.job_store import JobStore, Kind, connect
from core.registry import ModelRegistry
from core.settings import Settings
from core.signing import Signer, Verifier
from core.storage import Storage
from core.terms import terms
from worker.batcher import Batcher
from worker.heartbeat import Heartbeat
from worker.marks import drain_mark
from worker.shelf import Shelf
from worker.training import Trainings

Role = Literal["inference", "trainer"]
KIND_OF_ROLE: dict[Role, Kind] = {"inference": "generation", "trainer": "erasure"}

DRAIN_S = 5.0
"""How long a worker that is told to stop goes on with the pictures it has begun."""

BROKER_RESTART_S = 30.0
"""How long a worker waits for a broker that went away before it lets go of its work."""


def assemble(role: Role, owner: str, settings: Settings) -> tuple[Callable[[], None], JobStore]:
    """The drain loop of a role, and the store it drains.

    Raises:
        Misconfigured: keys are missing.
    """
    assert settings.redis_url is not None, "worker.__main__ sees to that"
    jobs = JobStore(connect(settings.redis_url, retry_s=BROKER_RESTART_S), terms(settings))
    registry = ModelRegistry(
        settings.models_dir,
        Verifier.load(settings.keys_dir),
        serve_unerased_base=settings.serve_unerased_base,
        default_model=settings.default_model,
    )
    heartbeat = Heartbeat(owner)
    mark = drain_mark(settings.run_dir, owner)
    if role == "trainer":
        trainings = Trainings(
            jobs,
            registry,
            Signer.load(settings.keys_dir),
            heartbeat,
            owner=owner,
            lease_s=settings.lease_s,
            draining=mark.exists,
        )
        return trainings.drain, jobs
    device = _device(settings.device)
    if device.type == "cpu":
        torch.set_num_threads(settings.cpu_threads)
    batcher = Batcher(
        jobs,
        Shelf(
            registry,
            device=device,
            dtype=torch.float32 if device.type == "cpu" else torch.float16,
        ),
        Storage(settings.images_dir),
        heartbeat,
        owner=owner,
        rows=settings.batch_rows,
        lease_s=settings.lease_s,
        draining=mark.exists,
        drain_s=DRAIN_S,
    )
    return batcher.drain, jobs


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)
