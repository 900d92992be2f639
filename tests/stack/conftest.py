"""Stacks for the tests: one that a module shares, one of its own for a test that stops it."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.live_stack import Stack


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Shared by the tests of a module: each leaves it running."""
    # Not tmp_path: a unix socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        running = Stack(Path(folder) / "data")
        running.start()
        yield running
        running.interrupt()
        running.http.close()


@pytest.fixture
def own_stack() -> Iterator[Stack]:
    """One for a test that stops it."""
    with tempfile.TemporaryDirectory(prefix="trce-") as folder:
        running = Stack(Path(folder) / "data", "--inference-workers", "1")
        running.start()
        yield running
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            running.interrupt()
        running.http.close()
