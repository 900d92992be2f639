"""What the trainers of one worker compute with, and where they keep what is worth keeping."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TrainerMeans:
    device: str
    processes: int
    """That stage 2 of an erasure runs in; of more than one each has a device."""
    threads: int
    """Of a trainer, where it computes on the CPU."""
    cache: Path
    """Moments of captions and pictures of bases, shared by all jobs."""
    checkpoints: Path
    """Every job has a folder of its own in it, until it ends."""
    prompt_sets: Path
    """The prompt files that evaluations may name."""

    @property
    def words(self) -> tuple[str | Path, ...]:
        """Of a trainer's command line, whatever it is to do."""
        return "--device", self.device, "--threads", str(self.threads), "--cache", self.cache
