"""How many streams of events are open: each holds a connection, so a tenant has only so many."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from core.errors import TooManyStreams


class OpenStreams:
    """Belongs to the event loop: not for use by threads."""

    def __init__(self, per_tenant: int) -> None:
        self._per_tenant = per_tenant
        self._open: Counter[str] = Counter()

    @contextmanager
    def one_more(self, tenant: str) -> Iterator[None]:
        """Raises TooManyStreams."""
        if self._open[tenant] >= self._per_tenant:
            raise TooManyStreams(
                f"you have {self._per_tenant} streams of events open already; close one, or poll"
            )
        self._open[tenant] += 1
        try:
            yield
        finally:
            self._open[tenant] -= 1
            self._open += Counter()  # without those that have none
