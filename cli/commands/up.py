"""`trce up`: the whole service on this machine."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from cli.answers import Json, answer
from cli.stack.ports import metrics_ports
from cli.stack.up import run_stack
from core.addresses import in_url, is_loopback
from core.keys import KeyStore
from core.redis_connection import connect
from core.settings import Settings
from core.telemetry import configure_logs


def up(
    data_dir: Annotated[
        Path | None, typer.Option(help="Where models, images and jobs live; `data` if not given.")
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="Address to listen on; others than this machine's own need API keys."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 picks a free one.")
    ] = None,
    inference_workers: Annotated[
        int | None, typer.Option(help="Processes that draw; if not given, one for each device.")
    ] = None,
    serve_base: Annotated[
        bool | None,
        typer.Option(
            "--serve-base/--erased-only", help="Also serve models from which nothing was erased."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Start broker, HTTP service, inference and trainer workers; Ctrl-C stops them all.

    Nothing accepted is lost by stopping: jobs wait in the data folder for the next start.
    """
    given: dict[str, Any] = {
        "data_dir": data_dir,
        "host": host,
        "port": port,
        "inference_workers": inference_workers,
        "serve_unerased_base": serve_base,
    }
    configure_logs("WARNING")
    settings = Settings(**{name: value for name, value in given.items() if value is not None})
    run_stack(settings, on_start=lambda final: _announce(final, as_json=as_json))


def _announce(settings: Settings, *, as_json: bool) -> None:
    url = f"http://{in_url(settings.host)}:{settings.port}"
    metrics = {
        name: f"http://{in_url(settings.metrics_host)}:{port}/metrics"
        for name, port in metrics_ports(settings).items()
    }
    words = [
        f"listening on [bold]{url}[/bold]   (API: {url}/docs, ready when {url}/readyz is)",
        f"logs in {settings.logs_dir}",
        *(f"metrics of {name}: {address}" for name, address in metrics.items()),
        _who_is_served(settings),
        "Ctrl-C stops everything",
    ]
    data: dict[str, Any] = {
        "url": url,
        "ready": f"{url}/readyz",
        "logs": str(settings.logs_dir),
        "metrics": metrics,
    }
    answer(Text.from_markup("\n".join(words)), data, as_json=as_json)


def _who_is_served(settings: Settings) -> str:
    assert settings.redis_url is not None
    with connect(settings.redis_url) as client:
        if KeyStore(client).exist():
            return "whoever has an API key is served: `trce keys list`"
    if is_loopback(settings.host) and not settings.require_keys:
        return "no API keys: only this machine is served; `trce keys create` makes one"
    return "[yellow]no API keys: nobody is served[/yellow] until `trce keys create` makes one"
