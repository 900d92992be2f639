"""What a registry asks of whoever remembers the newest manifest of each model."""

from contextlib import AbstractContextManager, nullcontext
from typing import Protocol


class SerialRecord(Protocol):
    """Remembers the newest manifest of each model, outside the folder of models."""

    def newest(self, model_id: str) -> int:
        """The highest serial that was seen of a model; 0: none.

        Raises:
            StoreUnavailable: that is not known yet.
        """

    def note(self, model_id: str, serial: int) -> None:
        """A manifest with this serial is signed by a trusted key: lower ones are out of date."""

    def changing(self, model_id: str, serial: int) -> AbstractContextManager[None]:
        """Within, no other host changes the model, whose newest manifest has this serial.

        Raises:
            ModelChanged: there is a newer one.
        """

    def close(self) -> None:
        """Let go of what it asks."""


class NoSerials:
    """Remembers none: where no Redis is at hand."""

    def newest(self, model_id: str) -> int:  # noqa: ARG002
        return 0

    def note(self, model_id: str, serial: int) -> None:
        pass

    def changing(self, model_id: str, serial: int) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def close(self) -> None:
        pass
