"""What a process has made at its start, and keeps."""

import gc


def spare_the_collector() -> None:
    """Python's collector of cycles need not look at it again and again.

    With torch and diffusers that are half a million objects: a quarter of a second now and then,
    for which the step or the request under way would wait.
    """
    gc.collect()
    gc.freeze()
