"""A UNet compiled for a few shapes: batches are padded to the next bucket of rows.

Every shape is compiled before anything is drawn with it. A pass of another shape, or of more rows
than the largest bucket, runs as it does without a compiler, so that no request waits for one.
Graphs read weights where they lie: those that are copied over them (`diffusion/swapping.py`) are
what the next pass draws with.
"""

from collections.abc import Sequence

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from diffusion.limits import Sides
from diffusion.rehearsing import rehearsal
from diffusion.twin_rows import no_twins

BACKEND = "inductor"
"""Of `torch.compile`: the one that makes machine code."""
MOST_GRAPHS = 256
"""Of one process: each size and bucket has one, which UNets of one config share. Torch would
stop at 8."""


class CompiledUNet:
    """Belongs to the thread that owns the device, as the UNet does."""

    def __init__(self, unet: UNet2DConditionModel, buckets: Sequence[int]) -> None:
        """
        Args:
            buckets: rows of a pass; a guided picture has two.
        """
        self.config = unet.config
        self.dtype = unet.dtype
        self._unet = unet
        self._buckets = sorted(set(buckets))
        self._compiled = torch.compile(unet, dynamic=False, fullgraph=True, backend=BACKEND)
        self._shapes: set[tuple[Sides, int]] = set()

    def compile_for(self, sides: Sides) -> None:
        """Latents of (height, width), in every bucket; takes from seconds to minutes.

        Raises:
            RuntimeError: whatever the compiler raises; the UNet then runs as it did.
        """
        limits = torch._dynamo.config.patch(  # noqa: SLF001  (there is no other name for it)
            recompile_limit=MOST_GRAPHS, accumulated_recompile_limit=MOST_GRAPHS
        )
        with limits, torch.inference_mode():
            for rows in self._buckets:
                rehearsal(self._compiled, sides, rows, self._unet.device)()
                self._shapes.add((sides, rows))

    def __call__(
        self,
        sample: Tensor,
        timestep: Tensor,
        *,
        encoder_hidden_states: Tensor,
        added_cond_kwargs: dict[str, Tensor] | None,
        return_dict: bool,
    ) -> tuple[Tensor, ...]:
        """As `diffusion.rehearsing.CallableUNet` has it."""
        rows, sides = len(sample), (sample.shape[-2], sample.shape[-1])
        bucket = next((one for one in self._buckets if one >= rows), None)
        if bucket is None or (sides, bucket) not in self._shapes:
            return self._unet(
                sample,
                timestep,
                encoder_hidden_states=encoder_hidden_states,
                added_cond_kwargs=added_cond_kwargs,
                return_dict=return_dict,
            )
        added = added_cond_kwargs and {
            name: _padded(value, bucket) for name, value in added_cond_kwargs.items()
        }
        # A pass that differs in what nobody thought of is not to be compiled while others wait.
        # It runs as it does without a compiler then, with rows that were padded.
        with torch.compiler.set_stance("eager_on_recompile"), no_twins():
            output: tuple[Tensor, ...] = self._compiled(
                _padded(sample, bucket),
                _padded(timestep, bucket),
                encoder_hidden_states=_padded(encoder_hidden_states, bucket),
                added_cond_kwargs=added,
                return_dict=return_dict,
            )
        return (output[0][:rows],)


def _padded(tensor: Tensor, rows: int) -> Tensor:
    """The first row again until there are `rows`, in the layout that the graphs were made for."""
    missing = rows - len(tensor)
    if not missing:
        return tensor.contiguous()
    return torch.cat([tensor, tensor[:1].expand(missing, *tensor.shape[1:])]).contiguous()
