"""TRCE stage 2 in several processes: which part of the work is this one's, and how the parts are
added up.

Each process, a *rank*, has a device and a UNet of its own, and takes every step together with
the others. It draws its share of the trajectories and computes its share of every batch; all go
on with the sums, which are those of one process but for the order of adding.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed
from accelerate import PartialState
from accelerate.utils import patch_environment, reduce
from torch import Tensor

LONGEST_WAIT = timedelta(minutes=10)
"""For a rank that is behind; then it is taken to be lost, and the others fail."""


@dataclass(frozen=True)
class Ranks:
    own: int = 0
    """The number of this process; 0 reports, and keeps what is kept."""
    count: int = 1

    @torch.no_grad()
    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Each becomes the sum over all ranks, in place."""
        if self.count > 1:
            for tensor in tensors:
                tensor.copy_(reduce(tensor, reduction="sum"))

    def agree(self, number: int, device: torch.device) -> bool:
        """Whether all ranks have the same number."""
        sums = torch.tensor([number, number**2], device=device)
        self.add_up([sums])
        total, squares = sums.tolist()
        return bool(self.count * squares == total**2)


ALONE = Ranks()


@contextmanager
def joined(ranks: Ranks, device: torch.device, meeting: Path) -> Iterator[None]:
    """In here, numbers can be added up.

    Args:
        device: this rank's; all have CPUs, or each a GPU of this host.
        meeting: a file that is not there yet, through which they find each other.
    """
    place = {"rank": ranks.own, "local_rank": ranks.own}
    size = {"world_size": ranks.count, "local_world_size": ranks.count}
    # Told no number of threads, accelerate sets one of its own.
    with patch_environment(**place, **size, omp_num_threads=torch.get_num_threads()):
        PartialState(
            cpu=device.type == "cpu",
            init_method=f"file://{meeting}",
            rank=ranks.own,
            world_size=ranks.count,
            timeout=LONGEST_WAIT,
        )
        try:
            yield
        finally:
            torch.distributed.destroy_process_group()
            PartialState._reset_state()  # noqa: SLF001  (the only way to leave)
