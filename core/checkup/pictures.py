"""Whether the store of pictures takes one, gives it back and forgets it."""

from core.checkup.check import Check, ok, problem
from core.errors import AppError
from core.storage import PictureStore

KEY = "probes/doctor/0.txt"


def check_pictures(store: PictureStore) -> Check:
    try:
        store.put(KEY, b"probe")
        same = store.get(KEY) == b"probe"
        store.delete_below("probes")
    except (AppError, OSError) as error:
        return problem(
            "picture store", str(error), "see the TRCE_S3_ settings, or the data folder"
        )
    if not same:
        return problem("picture store", "it gave back other bytes than it took", "replace it")
    return ok("picture store", store.where)
