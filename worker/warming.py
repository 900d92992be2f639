"""What a worker does before it declares itself ready, so that no request waits for it."""

import time
from collections.abc import Iterable
from functools import partial

import structlog

from core.errors import AppError
from diffusion.full_memory import within_memory
from worker.shelf import Shelf

log = structlog.get_logger()


def warm_up(shelf: Shelf, models: Iterable[str]) -> None:
    """A model that cannot be drawn with is said and left out: requests for it will tell why."""
    for model_id in models:
        began_s = time.monotonic()
        try:
            within_memory(partial(shelf.warm_up, model_id), "it does not fit the device now")
        except AppError as error:
            log.warning("not warmed up", model=model_id, reason=str(error))
        else:
            log.info("warmed up", model=model_id, seconds=round(time.monotonic() - began_s, 1))
