"""The service as a process: `python -m service`. Settings are read here and passed on."""

import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from pydantic import BaseModel

from core.checkup.check import insist
from core.checkup.port import check_ports
from core.job_specs import Kind
from core.jobs import Job
from core.lasting import spare_the_collector
from core.settings import Settings
from core.startup import read_settings, start
from core.telemetry import configure_logs
from core.version import CODE_VERSION
from service import reference
from service.a1111 import drawing
from service.a1111 import settings as a1111_settings
from service.access import Access
from service.bodies import BodyLimit
from service.door import Door
from service.hardening import Hardening
from service.huggingface import inference
from service.impatience import impatient
from service.openai import images
from service.openapi import DESCRIPTION, TAGS, Api
from service.problems import answer_with_problems
from service.routes import (
    aliases,
    audit,
    dead_letters,
    erasures,
    evaluations,
    exports,
    generations,
    health,
    keys,
    metrics,
    models,
    policies,
    presets,
    reports,
    verify,
    webhooks,
)
from service.web import assets, login, playground
from service.web import erasures as web_erasures
from service.web import models as web_models
from service.web import queue as web_queue
from service.webhooks.deliverer import Deliverer
from service.wiring import wire

log = structlog.get_logger(__name__)

GRACE_S = 5
"""How long requests may go on after the process was told to stop."""

READABLE_REQUEST_HEADERS = [
    *("Authorization", "Content-Type", "Idempotency-Key", "Prefer", "If-None-Match"),
    *("Last-Event-ID", "X-Request-Id"),
]
READABLE_ANSWER_HEADERS = [
    *("Location", "Retry-After", "ETag", "X-Request-Id", "Preference-Applied"),
    *("RateLimit", "RateLimit-Policy"),
]
"""Of requests that pages of other sites make, where TRCE_CORS_ORIGINS lets them."""


PAGES = (assets, login, playground, web_erasures, web_models, web_queue)
"""What `/` and the rest of the page for people consist of."""

SHOWN: dict[Kind, Callable[[Job], BaseModel]] = {
    "generation": generations.Generation.of,
    "erasure": erasures.Erasure.of,
    "evaluation": evaluations.Evaluation.of,
}


def create_app(settings: Settings) -> FastAPI:
    """Raises Misconfigured."""
    parts = wire(settings)
    deliverer = Deliverer(
        parts.jobs,
        parts.outbox,
        parts.webhook_secrets,
        lambda job: SHOWN[job.spec.kind](job).model_dump(mode="json"),
        private_too=settings.webhooks_to_private_addresses,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if parts.doorkeeper.lets_nobody_in():
            log.warning("no API keys, so nobody is served; `trce keys create` makes one")
        parts.sweeper.start()
        parts.refused.start()
        parts.endings.start()
        deliverer.start()
        end_metrics = (
            parts.metrics.listen(settings.metrics_port, settings.metrics_host)
            if settings.metrics_port
            else None
        )
        yield
        if end_metrics:
            end_metrics()
        deliverer.stop()
        parts.sweeper.stop()
        parts.refused.stop()
        parts.endings.stop()
        parts.tracing.close()
        parts.registry.serials.close()
        parts.client.close()

    app = Api(
        title="TRCE service",
        version=CODE_VERSION,
        description=DESCRIPTION,
        openapi_tags=TAGS,
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,
    )
    app.state.parts = parts
    for noun in (
        generations,
        erasures,
        evaluations,
        dead_letters,
        models,
        aliases,
        reports,
        exports,
        presets,
        policies,
        verify,
        audit,
        keys,
        webhooks,
    ):
        app.include_router(noun.router, prefix="/v1")
    app.include_router(images.router, prefix="/v1")
    for part in (drawing, a1111_settings):
        app.include_router(part.router, prefix="/sdapi/v1")
    app.include_router(inference.router)
    app.include_router(reference.router)
    app.include_router(health.router)
    app.include_router(metrics.router)
    for pages in PAGES:
        app.include_router(pages.router)
    answer_with_problems(app)
    limits = {
        verify.ADDRESS: settings.max_picture_bytes,
        drawing.PNG_INFO: settings.max_picture_bytes * 2,  # in base64
    }
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_body_bytes,
        within_s=settings.receive_timeout_s,
        larger=limits,
    )
    # The last one added is the outermost.
    app.add_middleware(Door, doorkeeper=parts.doorkeeper)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins.split(),
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=READABLE_REQUEST_HEADERS,
            expose_headers=READABLE_ANSWER_HEADERS,
        )
    app.add_middleware(Hardening)
    app.add_middleware(Access, metrics=parts.metrics, tracing=parts.tracing)
    return app


class Server(uvicorn.Server):
    """Tells those who wait for a job that they are not to, so that it can stop at once."""

    def __init__(self, config: uvicorn.Config, closing: threading.Event) -> None:
        super().__init__(config)
        self._closing = closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._closing.set()
        super().handle_exit(sig, frame)


def run() -> None:
    configure_logs()
    settings = start(lambda: read_settings("service"))
    start(lambda: insist(check_ports(settings)))
    app = start(lambda: create_app(settings))
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=impatient(settings.receive_timeout_s),
        log_config=None,
        access_log=False,  # service.access logs requests
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=GRACE_S,
    )
    spare_the_collector()
    Server(config, app.state.parts.closing).run()
