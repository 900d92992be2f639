"""What a shell offers after TAB: names that ship, and models of the service that runs."""

import os
from collections.abc import Iterable

import httpx

from cli.benchmarks import benchmarks
from core import presets
from core.errors import AppError
from core.thresholds import ATTACKS, SUITES

PATIENCE_S = 1.0
DEFAULT_URL = "http://127.0.0.1:8000"


def preset_names(incomplete: str) -> list[str]:
    return _starting(incomplete, presets.names())


def suite_names(incomplete: str) -> list[str]:
    return _starting(incomplete, SUITES)


def attack_names(incomplete: str) -> list[str]:
    return _starting(incomplete, ATTACKS)


def benchmark_names(incomplete: str) -> list[str]:
    try:
        return _starting(incomplete, benchmarks())
    except AppError:
        return []


def model_ids(incomplete: str) -> list[str]:
    """Of the service at TRCE_URL, with TRCE_API_KEY; none where it does not answer at once."""
    key = os.environ.get("TRCE_API_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else None
    url = os.environ.get("TRCE_URL", DEFAULT_URL)
    try:
        answer = httpx.get(f"{url}/v1/models", headers=headers, timeout=PATIENCE_S)
        answer.raise_for_status()
        return _starting(incomplete, [model["id"] for model in answer.json()["data"]])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return []


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
