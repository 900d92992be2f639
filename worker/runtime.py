"""What one worker process is made of, put together once when the process starts."""

from collections.abc import Callable
from functools import partial

import torch

from core.detection import DetectorSpec
from core.installation import open_pictures, open_serving_registry
from core.job_store import JobStore
from core.manifests import Manifest
from core.policies import PolicyStore
from core.redis_connection import connect
from core.refusals import Refusals
from core.registry import ModelRegistry
from core.settings import Settings
from core.signing import Signer
from core.tracing import start_tracing
from diffusion.detectors.loading import load_detector
from diffusion.detectors.protocol import Detector
from worker import metrics
from worker.batcher import Batcher
from worker.content_credentials import ContentCredentials
from worker.device import free_bytes, placement
from worker.finishing import Finisher
from worker.heartbeat import Heartbeat
from worker.judging import Panel
from worker.marks import drain_mark
from worker.refusing import RefusalBoard
from worker.roles import Role
from worker.room import Room
from worker.shelf import Shelf
from worker.trainer_means import TrainerMeans
from worker.training import Trainings
from worker.warming import warm_up

DRAIN_S = 5.0
"""How long a worker that is told to stop goes on with the pictures it has begun."""


ROWS_OF_A_PICTURE = 2
"""Of a guided one, in a UNet pass."""

POLICY_RETRY_S = 30.0
"""How long a finished picture waits for a broker that went away before its job is let go."""


def assemble(role: Role, owner: str, settings: Settings, jobs: JobStore) -> Callable[[], None]:
    """The drain loop of a role.

    Raises:
        Misconfigured: keys are missing, or Content Credentials half configured.
    """
    assert settings.redis_url is not None
    registry = open_serving_registry(settings)
    mark = drain_mark(settings.run_dir, owner)
    place = placement(settings, owner, gpus=torch.cuda.device_count())
    device = place.device
    tracing = start_tracing(settings.trace_endpoint, role)
    metrics.listen(settings.metrics_port, settings.metrics_host)
    # There whatever else of the data folder this worker sees.
    metrics.watch_disk(settings.run_dir)
    if device.type == "cuda":
        torch.cuda.set_device(device)
        metrics.watch_gpu(device.index)
    if role == "trainer":
        heartbeat = Heartbeat(owner)
        trainings = Trainings(
            jobs,
            registry,
            Signer.load(settings.keys_dir),
            heartbeat,
            owner=owner,
            lease_s=settings.lease_s,
            silence_s=settings.trainer_silence_s,
            means=TrainerMeans(
                device=device.type if settings.trainer_processes > 1 else str(device),
                processes=settings.trainer_processes,
                threads=settings.cpu_threads,
                cache=settings.cache_dir,
                checkpoints=settings.checkpoints_dir,
                prompt_sets=settings.prompt_sets_dir,
            ),
            draining=mark.exists,
            samples=settings.erasure_samples,
            judges=PolicyStore(connect(settings.redis_url)).judges,
            tracing=tracing,
        )
        heartbeat.begin()
        return trainings.drain
    if device.type == "cpu":
        torch.set_num_threads(settings.cpu_threads)
    shelf = Shelf(
        registry,
        device=device,
        dtype=place.dtype,
        layout=place.layout,
        refusals=RefusalBoard(Refusals(connect(settings.redis_url)), owner),
        delta_cache_bytes=settings.delta_cache_bytes,
        room=Room(
            device,
            place.dtype,
            partial(free_bytes, device),
            settings.footprints_dir,
            settings=f"{place.layout} {settings.buckets}",
        ),
        buckets=settings.buckets,
        most_rows=ROWS_OF_A_PICTURE * settings.batch_rows,
    )
    metrics.BATCH_LIMIT.set(settings.batch_rows)
    warm_up(shelf, map(registry.resolve, settings.warm_up.split()))
    # With its first beat the worker is ready.
    heartbeat = Heartbeat(owner)
    batcher = Batcher(
        jobs.leasing,
        shelf,
        _finisher(settings, registry, device),
        heartbeat,
        owner=owner,
        rows=settings.batch_rows,
        lease_s=settings.lease_s,
        draining=mark.exists,
        drain_s=DRAIN_S,
        tracing=tracing,
    )
    heartbeat.begin()
    return batcher.drain


def _finisher(settings: Settings, registry: ModelRegistry, device: torch.device) -> Finisher:
    assert settings.redis_url is not None
    policies = PolicyStore(connect(settings.redis_url, retry_s=POLICY_RETRY_S))

    def load(spec: DetectorSpec, base: Manifest) -> Detector:
        folder = registry.path(base.id)
        return load_detector(spec, model_folder=folder, manifest=base, device=device)

    return Finisher(
        open_pictures(settings),
        Signer.load_or_create(settings.picture_keys_dir),
        Panel(policies, load),
        ContentCredentials.load(settings.c2pa_certificates, settings.c2pa_key),
    )
