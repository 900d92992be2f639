"""How much memory a model takes on a device, and each picture that it draws: computed, not tried.

UNet and VAE are made on torch's `meta` device, from their configs, and run there: every tensor
has its shape and none has memory. What is alive at once is added up. Attention is taken to be
fused, as torch's own is: its matrix of scores is never whole.
"""

import json
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diffusion.families import PARTS
from diffusion.rehearsing import rehearsal
from diffusion.weights import find_weights, open_weights


class Footprint(BaseModel):
    """Bytes, for one size of picture and one dtype."""

    model_config = ConfigDict(frozen=True)

    weights: int
    """All parts of the model."""
    row: int
    """What each row of a UNet pass takes; a guided picture has two."""
    decoding: int
    """What decoding takes for each picture."""

    def drawing(self, *, guided: bool) -> int:
        """To draw one picture, with the weights there."""
        return max(self.row * (2 if guided else 1), self.decoding)


def measure(folder: Path, *, dtype: torch.dtype, width_px: int, height_px: int) -> Footprint:
    """Of the model in a diffusers folder; only configs and headers are read.

    Raises:
        UntrustedModel: a part's weights cannot be read.
    """
    unet_config, vae_config = (_config(folder / part) for part in ("unet", "vae"))
    with torch.device("meta"):
        unet = _cast(UNet2DConditionModel.from_config(unet_config), dtype)
        vae = _cast(AutoencoderKL.from_config(vae_config), _vae_dtype(vae_config, dtype))
    factor = 2 ** (len(vae_config["block_out_channels"]) - 1)
    height, width = height_px // factor, width_px // factor
    latents = torch.empty(1, 4, height, width, device="meta", dtype=vae.dtype)
    decoding = _peak(vae, lambda: vae.decode(latents, return_dict=False))
    return Footprint(
        weights=weights_bytes(folder, dtype),
        row=_peak(unet, rehearsal(unet, (height, width), 1, "meta")),
        decoding=decoding,
    )


def weights_bytes(folder: Path, dtype: torch.dtype) -> int:
    """Of all parts, once they are loaded in `dtype`."""
    total = 0
    for part in (name for name in PARTS["sdxl"] if not name.startswith("tokenizer")):
        if not (folder / part).is_dir():
            continue
        kept = _vae_dtype(_config(folder / part), dtype) if part == "vae" else dtype
        with open_weights(*find_weights(folder / part).paths) as weights:
            sizes = (torch.Size(weights.shape(name)).numel() for name in weights.names)
            total += sum(sizes) * kept.itemsize
    return total


def _vae_dtype(config: dict[str, Any], dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if config.get("force_upcast") and dtype is torch.float16 else dtype


def _cast(model: nn.Module, dtype: torch.dtype) -> Any:
    # Past the method of diffusers, which warns of weights that are not there.
    return nn.Module.to(model, dtype=dtype).eval()


def _config(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "config.json").read_text()))


def _peak(model: nn.Module, run: Callable[[], Any]) -> int:
    """The most bytes that were alive at once while it ran, its parameters left out."""
    living = Living(model.parameters())
    with torch.no_grad(), living, _FusedAttention():
        run()
    return living.peak


class Living(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive; `known` ones count nothing."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._sizes = {id(one.untyped_storage()): 0 for one in known}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                self._count(one.untyped_storage())
        self.peak = max(self.peak, self._now)
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        if id(storage) not in self._sizes:
            self._sizes[id(storage)] = storage.nbytes()
            self._now += storage.nbytes()
            weakref.finalize(storage, self._forget, id(storage))

    def _forget(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


class _FusedAttention(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))
