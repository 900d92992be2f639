"""A disk that fills up while a model is written: one error with a name, whoever was writing."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from core.errors import NotEnoughRoom

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How safetensors, written in Rust, tells the number."""


@contextmanager
def full_disk_named(*places: Path | None) -> Iterator[None]:
    """Raises NotEnoughRoom in place of whatever says that there is no room left.

    Args:
        places: what is being written, for the message.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        if _number(error) not in NO_ROOM:
            raise
        written = " and ".join(str(place) for place in places if place is not None)
        raise NotEnoughRoom(
            f"the disk has no room left for {written}; free some, and start again"
        ) from error


def _number(error: OSError | SafetensorError) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    told = OS_ERROR.search(str(error))
    return int(told[1]) if told else None
