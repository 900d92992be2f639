"""What an erasure in this process runs on."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Running:
    device: str = "cpu"
    processes: int = 1
    threads: int | None = None
    """On the CPU; None for PyTorch's choice."""
    work: Path | None = None
    """A folder for checkpoints of stage 2, from which a run that was killed goes on."""

    def set_threads(self) -> None:
        """Of this process, from now on."""
        if self.threads is not None:
            # Not before: it takes seconds.
            import torch  # noqa: PLC0415

            torch.set_num_threads(self.threads)
