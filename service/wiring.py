"""What the service is made of, put together once; routes ask for parts by these types."""

import threading
from dataclasses import dataclass
from typing import Annotated

import redis
from fastapi import Depends, Request

from core.addresses import is_loopback
from core.audit import AuditTrail
from core.default_model import DefaultModel
from core.errors import Misconfigured
from core.installation import (
    leavings_of,
    open_default_model,
    open_pictures,
    open_serving_registry,
)
from core.job_ids import JobIds
from core.job_store import JobStore
from core.keys import KeyStore
from core.policies import PolicyStore
from core.queue import TASK_OF_KIND, Wakes, celery_app
from core.redis_connection import connect
from core.registrar import Registrar
from core.registry import ModelRegistry
from core.settings import Settings
from core.signing import Signer, Verifier
from core.storage import PictureStore
from core.sweeper import Sweeper
from core.terms import terms
from core.tracing import Tracing, start_tracing
from core.workers import WorkerRoll
from service.admission import AdmissionDesk
from service.doorkeeper import Doorkeeper
from service.endings import Endings
from service.metrics import Metrics
from service.rates import RateLimits
from service.readiness import Readiness
from service.records import Records
from service.refused_models import RefusedModels
from service.sessions import Sessions
from service.streams import OpenStreams
from service.tidying import Tidying
from service.verification import Verification
from service.webhooks.outbox import Outbox
from service.webhooks.secrets import WebhookSecrets


@dataclass(frozen=True)
class Parts:
    client: redis.Redis
    doorkeeper: Doorkeeper
    keys: KeyStore
    sessions: Sessions
    jobs: JobStore
    storage: PictureStore
    policies: PolicyStore
    rates: RateLimits
    desk: AdmissionDesk
    generations: Records
    erasures: Records
    evaluations: Records
    registry: ModelRegistry
    registrar: Registrar
    default_model: DefaultModel
    audit: AuditTrail
    signer: Signer
    verification: Verification
    readiness: Readiness
    refused: RefusedModels
    metrics: Metrics
    tracing: Tracing
    sweeper: Sweeper
    endings: Endings
    streams: OpenStreams
    outbox: Outbox
    webhook_secrets: WebhookSecrets
    longest_stream_s: float
    """Then its client connects again."""
    longest_sitting_s: float
    """How long a client that knows no queue may wait for its pictures."""
    closing: threading.Event
    """Set when the process was told to stop: nobody is to wait any longer."""


def wire(settings: Settings) -> Parts:
    """Connects to nothing yet: the service starts, and answers 503, while Redis is away.

    Raises:
        Misconfigured.
    """
    if settings.redis_url is None:
        raise Misconfigured("REDIS_URL is not set; `trce up` starts a Redis and sets it")
    client = connect(settings.redis_url, rest_s=1.0)
    jobs = JobStore(client, terms(settings))
    ids = JobIds(client)
    wakes = Wakes(celery_app(settings.redis_url))
    storage = open_pictures(settings)
    signer = Signer.load_or_create(settings.keys_dir)
    default_model = open_default_model(settings, client)
    registry = open_serving_registry(settings, default_model)
    # A picture may come to be verified before a worker has signed one.
    Signer.load_or_create(settings.picture_keys_dir)
    policies = PolicyStore(client)
    roll = WorkerRoll(client)
    tidying = Tidying(jobs, storage, leavings_of(settings), keep_s=settings.keep_generations_s)
    keyless = is_loopback(settings.host) and not settings.require_keys
    keys = KeyStore(client)
    sessions = Sessions(client, keys)
    audit = AuditTrail(client, signer, Verifier.load(settings.keys_dir))
    refused = RefusedModels(client, registry, audit)
    closing = threading.Event()
    return Parts(
        client=client,
        doorkeeper=Doorkeeper(keys, sessions, keyless=keyless),
        keys=keys,
        sessions=sessions,
        jobs=jobs,
        storage=storage,
        policies=policies,
        rates=RateLimits(client),
        desk=AdmissionDesk(
            jobs,
            wakes,
            registry,
            policies,
            ids,
            webhooks_to_private_addresses=settings.webhooks_to_private_addresses,
        ),
        generations=Records(jobs, ids, policies, "generation"),
        erasures=Records(jobs, ids, policies, "erasure"),
        evaluations=Records(jobs, ids, policies, "evaluation"),
        registry=registry,
        registrar=Registrar(registry),
        default_model=default_model,
        audit=audit,
        refused=refused,
        signer=signer,
        verification=Verification(registry, Verifier.load(settings.picture_keys_dir)),
        metrics=Metrics(
            client,
            jobs.counts,
            roll,
            registry,
            refused,
            data_dir=settings.data_dir,
            within_s=settings.lease_s,
        ),
        tracing=start_tracing(settings.trace_endpoint, "service"),
        readiness=Readiness(client, jobs, roll, registry, within_s=settings.lease_s),
        sweeper=Sweeper(jobs, wakes, tuple(TASK_OF_KIND), tidy=tidying),
        # A listener's connection is silent as a rule: what it hears says nothing of the broker.
        endings=Endings(connect(settings.redis_url), closing),
        outbox=Outbox(client),
        webhook_secrets=WebhookSecrets(client),
        streams=OpenStreams(settings.max_streams_per_tenant),
        longest_stream_s=settings.longest_stream_s,
        longest_sitting_s=settings.longest_sitting_s,
        closing=closing,
    )


async def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


InParts = Annotated[Parts, Depends(_parts)]
