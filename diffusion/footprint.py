"""How much memory a model takes on a device, and each picture that it draws: computed, not tried.

All parts are made on torch's `meta` device, from their configs, and UNet and VAE run there: every
tensor has its shape and none has memory. What is alive at once is added up. Attention is taken to
be fused, as torch's own is: its matrix of scores is never whole.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, UNet2DConditionModel
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from core.model_files import ModelFiles
from diffusion.rehearsing import rehearsal
from diffusion.text_memory import remember_projections, remembered_bytes

TEXT_ENCODERS = {"text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection}

FORMULA = 3
"""Another number when `measure` computes otherwise: nobody is to go by what was kept before."""


class Footprint(BaseModel):
    """Bytes, for one size of picture and one dtype."""

    model_config = ConfigDict(frozen=True)

    weights: int
    """All parts of the model."""
    row: int
    """What each row of a UNet pass takes, with what is remembered of its text; a guided picture
    has two."""
    decoding: int
    """What decoding takes for each picture."""

    def drawing(self, *, guided: bool) -> int:
        """To draw one picture, with the weights there."""
        return max(self.row * (2 if guided else 1), self.decoding)


def measure(
    files: ModelFiles,
    *,
    dtype: torch.dtype,
    width_px: int,
    height_px: int,
    remembering: bool = False,
) -> Footprint:
    """Of the model in a diffusers folder; only its configs are read.

    Args:
        remembering: the UNet remembers texts, see `diffusion.text_memory`.

    Raises:
        UntrustedModel: a config is not as the manifest says.
        ModelUnsupported: one is missing, or not JSON.
    """
    parts = _parts(files, dtype)
    unet, vae = parts["unet"], parts["vae"]
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    height, width = height_px // factor, width_px // factor
    latents = torch.empty(1, 4, height, width, device="meta", dtype=vae.dtype)
    decoding = _peak(vae, lambda: vae.decode(latents, return_dict=False))
    row = _peak(unet, rehearsal(unet, (height, width), 1, "meta"))
    if remembering:
        remember_projections(unet)
        row += remembered_bytes(unet)
    return Footprint(
        weights=_weights_bytes(parts),
        row=row,
        decoding=decoding,
    )


def weights_bytes(files: ModelFiles, dtype: torch.dtype) -> int:
    """Of all parts, once they are loaded in `dtype`. Raises as `measure` does."""
    return _weights_bytes(_parts(files, dtype))


def _weights_bytes(parts: dict[str, Any]) -> int:
    return sum(one.nbytes for part in parts.values() for one in part.parameters())


def _parts(files: ModelFiles, dtype: torch.dtype) -> dict[str, Any]:
    unet, vae = (files.read_json(f"{part}/config.json") for part in ("unet", "vae"))
    with torch.device("meta"):
        parts = {
            "unet": _cast(UNet2DConditionModel.from_config(unet), dtype),
            "vae": _cast(AutoencoderKL.from_config(vae), _vae_dtype(vae, dtype)),
        }
        for part, kind in TEXT_ENCODERS.items():
            if (name := f"{part}/config.json") in files:
                config = kind.config_class.from_dict(files.read_json(name))
                parts[part] = _cast(kind(config), dtype)
    return parts


def _vae_dtype(config: dict[str, Any], dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if config.get("force_upcast") and dtype is torch.float16 else dtype


def _cast(model: nn.Module, dtype: torch.dtype) -> Any:
    # Past the method of diffusers, which warns of weights that are not there.
    return nn.Module.to(model, dtype=dtype).eval()


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
