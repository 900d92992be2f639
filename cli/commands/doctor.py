"""`trce doctor`: looks at everything that an installation stands on, and names each fix."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.text import Text

from cli.answers import Json, answer
from cli.stack.borrowed import borrowed_redis
from core.checkup.broker import check_broker
from core.checkup.check import Check, problem
from core.checkup.compiler import check_compiler
from core.checkup.device import check_driver, check_torch
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
        *([check_compiler(settings.device)] if settings.compile_unet else []),
        *check_folder(settings.data_dir),
        *_redis(settings),
        _pictures(settings),
        check_keys(settings),
        check_models(settings),
        check_port(settings.host, settings.port),
    ]


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
