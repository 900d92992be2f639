"""Whether the store of pictures takes one, gives it back and forgets it."""

import secrets

from core.checkup.check import Check, ok, problem
from core.errors import AppError, ImageNotFound, PicturesUnavailable
from core.storage import PictureStore

NAME = "picture store"
FIX = "see the TRCE_S3_ settings, or the data folder"


def check_pictures(store: PictureStore) -> Check:
    try:
        return check_answered(store)
    except (AppError, OSError) as error:
        return problem(NAME, str(error), FIX)


def check_answered(store: PictureStore) -> Check:
    """
    Raises:
        PicturesUnavailable, OSError: it does not answer, or not now.
    """
    # Of its own, as others may look at the same time.
    probe = f"probes/{secrets.token_hex(8)}"
    try:
        store.put(f"{probe}/0.txt", b"probe")
        try:
            same = store.get(f"{probe}/0.txt") == b"probe"
        finally:
            store.delete_below(probe)
    except PicturesUnavailable as error:
        if not error.refused:
            raise
        return problem(NAME, str(error), FIX)
    except ImageNotFound:
        return problem(NAME, "it does not give back what it took", "replace it")
    if not same:
        return problem(NAME, "it gave back other bytes than it took", "replace it")
    return ok(NAME, store.where)
