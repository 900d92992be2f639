"""`trce doctor`: looks at everything that an installation stands on, and names each fix."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated

import redis
import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.text import Text

from cli.answers import Json, answer
from cli.byte_bars import byte_bar, size_of
from cli.stack.borrowed import borrowed_redis
from core.checkup.broker import check_broker
from core.checkup.check import Check, ok, problem, warning
from core.checkup.compiler import check_compiler
from core.checkup.default_model import check_default
from core.checkup.device import check_driver, check_torch, has_torch
from core.checkup.folder import check_folder, check_keys, check_models
from core.checkup.names import check_names
from core.checkup.pictures import check_pictures
from core.checkup.port import check_metrics_port, check_port
from core.checkup.tracing import check_tracing
from core.errors import AppError
from core.explaining import explain
from core.installation import open_default_model, open_pictures, open_registry
from core.settings import Settings
from core.startup import WRITTEN_BY_ANY

COLOURS = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(
    data_dir: Annotated[
        Path | None, typer.Option(help="The installation's data folder; `data` if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check GPU, torch, Redis, storage, keys, models, ports, clock, traces and settings.

    Exits with 1 when something is wrong that would stop the service or lose what it accepted.
    """
    checks = []
    for one in examine(data_dir, as_json=as_json):
        checks.append(one)
        if not as_json:
            answer(_line(one), None, as_json=False)
    if as_json:
        answer("", [one.model_dump() for one in checks], as_json=True)
    if any(one.state == "problem" for one in checks):
        sys.exit(1)


def examine(data_dir: Path | None = None, *, as_json: bool = True) -> Iterator[Check]:
    """Every check as it is made, each even if another failed.

    Args:
        as_json: show nobody how far the long ones are.
    """
    try:
        settings = Settings() if data_dir is None else Settings(data_dir=data_dir)
    except (ValidationError, SettingsError) as error:
        yield check_names()
        for line in explain(error):
            yield problem("settings", line, "see .env.example")
        return
    yield check_names()
    yield from _device(settings)
    yield from check_folder(settings.data_dir, WRITTEN_BY_ANY)
    yield from _redis(settings)
    yield _pictures(settings)
    yield check_keys(settings)

    def bar(folders: list[Path]) -> AbstractContextManager[None]:
        return byte_bar("digesting what is served", size_of(folders), as_json=as_json)

    yield check_models(settings, while_digesting=bar)
    yield from _credentials(settings)
    yield check_port(settings.host, settings.port)
    if settings.metrics_port:
        yield check_metrics_port(settings.metrics_host, settings.metrics_port)
    if settings.trace_endpoint:
        yield check_tracing(settings.trace_endpoint)


def _device(settings: Settings) -> Iterator[Check]:
    yield check_torch(settings.device, gpus_needed=settings.trainer_processes)
    if has_torch():
        yield check_driver(settings.device)
        if settings.compile_unet:
            yield check_compiler(settings.device)


def _credentials(settings: Settings) -> Iterator[Check]:
    """The pair that signs Content Credentials, where one is set."""
    name = "content credentials"
    pair = settings.c2pa_certificates, settings.c2pa_key
    if pair == (None, None):
        return
    try:
        from worker.content_credentials import ContentCredentials  # noqa: PLC0415
    except ModuleNotFoundError:
        # In the image of the service.
        yield warning(name, "not looked at here", "ask where workers run")
        return
    try:
        ContentCredentials.load(*pair)
    except AppError as error:
        yield problem(name, str(error), "see docs/operations.md, Where pictures come from")
    else:
        yield ok(name, f"{pair[1]} signs")


def _redis(settings: Settings) -> list[Check]:
    """The one of REDIS_URL; without it the embedded one, started for the moment."""
    try:
        with borrowed_redis(settings) as client:
            return [*check_broker(client), *_default(settings, client)]
    except (AppError, OSError) as error:
        return [problem("redis", str(error), "set REDIS_URL, or see the data folder")]


def _default(settings: Settings, client: redis.Redis) -> list[Check]:
    try:
        return [check_default(open_default_model(settings, client), open_registry(settings))]
    except AppError:
        return []  # without a key no model is read, which is said already


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
