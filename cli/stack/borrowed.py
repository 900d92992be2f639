"""The Redis of an installation, for a command that needs it for a moment."""

import contextlib
import subprocess
from collections.abc import Iterator

import redis

from cli.stack.broker import broker_command, broker_url, wait_until_ready
from cli.stack.lock import only_stack
from core.errors import StoreUnavailable
from core.redis_connection import connect
from core.settings import Settings
from core.urls import without_password

START_S = 20.0


@contextlib.contextmanager
def borrowed_redis(settings: Settings) -> Iterator[redis.Redis]:
    """REDIS_URL if it is set; else the embedded one, started for the moment if `trce up` is not.

    Raises:
        Misconfigured: there is none to be had.
        StoreUnavailable: says which one does not answer. Who asks over HTTP is not told.
    """
    if settings.redis_url is not None:
        try:
            with connect(settings.redis_url) as client:
                yield client
        except StoreUnavailable as error:
            raise StoreUnavailable(
                f"the Redis at {without_password(settings.redis_url)} does not answer "
                f"({error.__cause__ or error}); start it, or correct REDIS_URL; "
                "`trce doctor` tells more"
            ) from error
        return
    url = broker_url(settings.broker_dir)
    with contextlib.ExitStack() as ours:
        if not _answers(url):
            # With the lock of `trce up`: two servers on one folder would spoil each other's files.
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            ours.enter_context(only_stack(settings.data_dir / "up.lock"))
            ours.enter_context(_running(broker_command(settings.broker_dir)))
            wait_until_ready(url, within_s=START_S)
        yield ours.enter_context(connect(url))


def _answers(url: str) -> bool:
    with redis.Redis.from_url(url) as client:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[None]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait()
