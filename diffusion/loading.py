"""A model folder -> its components, ready to draw: verified, safetensors only, frozen.

Every file is read once, so what was checked is what is loaded, whatever happens to the folder
meanwhile.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from core.checked_stream import LeftToCheck
from core.manifests import Manifest
from core.weight_names import weight_names
from diffusion.assembling import (
    assemble_diffusers,
    assemble_transformers,
    read_words,
    shapes_of,
)
from diffusion.base_folder import BaseFolder, open_base
from diffusion.families import text_parts
from diffusion.prompts import PromptEncoder, SecondEncoder
from diffusion.weights import read_tensors

READERS = 4
"""Threads that read and digest files: more than keep a disk or the memory busy gain nothing."""

AT_ONCE_BYTES = 32 << 20
"""Of a file that is read when it is asked for: threads would wait for each other's turn with the
interpreter for longer than they read, by a fifth of what loading the shipped model takes."""

T = TypeVar("T")
Tensors = Callable[[str], dict[str, Tensor]]
"""A part's name -> its tensors, waited for."""


@dataclass(frozen=True)
class Components:
    """The parts of one model, in eval mode, none of them trainable."""

    family: str
    tokenizer: CLIPTokenizer
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler_config: dict[str, Any]
    """The model's own `scheduler_config.json`; `_class_name` says which scheduler it is for."""
    second: SecondEncoder | None = None
    """Of SDXL."""
    zero_empty: bool = False
    """The model knows the empty prompt as zeros."""

    def prompt_encoder(self) -> PromptEncoder:
        return PromptEncoder(
            self.tokenizer, self.text_encoder, second=self.second, zero_empty=self.zero_empty
        )


def load_base(
    folder: Path,
    manifest: Manifest | None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    later: LeftToCheck | None = None,
) -> Components:
    """Load a diffusers folder, after checking it against its manifest if there is one.

    The signature of the manifest is the registry's business; here the files are held against it.

    Args:
        later: takes the checks that need not be made before drawing begins, of weights on a CPU
            and of files that nobody reads; None: all are made. What was read of such weights stays
            in memory until its check is made.

    Raises:
        UntrustedModel: a file is not as the manifest says, or weights are not safetensors.
        ModelUnsupported: another kind of model, a part is missing, or parts do not fit.
    """
    base = open_base(folder, manifest)
    # The VAE of SDXL computes numbers that half precision does not hold, and says so.
    upcast = base.configs["vae"].get("force_upcast", False)
    vae_dtype = torch.float32 if upcast and dtype is torch.float16 else dtype
    wanted = {"unet": dtype, "vae": vae_dtype, **dict.fromkeys(text_parts(base.family), dtype)}
    with _reading(base, wanted, device, later) as tensors:
        # The largest comes last: the others are put together while it is read.
        tokenizer, text_encoder, second = _text(base, tensors, device)
        vae = _diffusers_part(AutoencoderKL, "vae", base, tensors)
        unet = _diffusers_part(UNet2DConditionModel, "unet", base, tensors)
    return Components(
        family=base.family,
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        unet=unet,
        vae=vae,
        scheduler_config=base.scheduler_config,
        second=second,
        zero_empty=base.zero_empty,
    )


def load_prompt_encoder(
    folder: Path,
    manifest: Manifest | None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> PromptEncoder:
    """The text side of a base model alone, checked as `load_base` checks all of it.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    base = open_base(folder, manifest)
    with _reading(base, dict.fromkeys(text_parts(base.family), dtype), device) as tensors:
        tokenizer, text_encoder, second = _text(base, tensors, device)
    return PromptEncoder(tokenizer, text_encoder, second=second, zero_empty=base.zero_empty)


def load_unet(
    folder: Path,
    manifest: Manifest | None,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> tuple[UNet2DConditionModel, dict[str, Any]]:
    """The UNet alone, checked like the whole, and its scheduler's configuration.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    base = open_base(folder, manifest)
    with _reading(base, {"unet": dtype}, device) as tensors:
        unet = _diffusers_part(UNet2DConditionModel, "unet", base, tensors)
        return unet, base.scheduler_config


def load_unet_and_vae(
    folder: Path,
    manifest: Manifest | None,
    *,
    device: torch.device | str = "cpu",
) -> tuple[UNet2DConditionModel, AutoencoderKL, dict[str, Any]]:
    """What draws, without what reads, in float32; checked like the whole.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    base = open_base(folder, manifest)
    with _reading(base, dict.fromkeys(("unet", "vae"), torch.float32), device) as tensors:
        vae = _diffusers_part(AutoencoderKL, "vae", base, tensors)
        unet = _diffusers_part(UNet2DConditionModel, "unet", base, tensors)
        return unet, vae, base.scheduler_config


def check_base(folder: Path, manifest: Manifest | None) -> None:
    """The files, classes and shapes of a base model fit; no weight is kept in memory.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    with _reading(open_base(folder, manifest), {}, "cpu"):
        pass


def unet_shapes(folder: Path, manifest: Manifest | None) -> dict[str, tuple[int, ...]]:
    """Of the UNet's tensors, by their names, as its config has them; no weight is read.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    base = open_base(folder, manifest)
    return shapes_of(UNet2DConditionModel, base.configs["unet"], f"{folder.name}/unet")


@contextmanager
def _reading(
    base: BaseFolder,
    wanted: Mapping[str, torch.dtype],
    device: torch.device | str,
    later: LeftToCheck | None = None,
) -> Iterator[Tensors]:
    """Begin to read the weights of the parts `wanted`, and to check all other files.

    Those of text encoders are read onto the CPU: `assemble_transformers` takes them there. Each
    part is asked for once.

    Args:
        later: as of `load_base`.

    Raises:
        UntrustedModel: at the end, if it was not when the tensors were asked for.
    """
    files = base.files
    names = {part: weight_names(files, part) for part in wanted}
    devices = dict.fromkeys(wanted, device) | dict.fromkeys(text_parts(base.family), "cpu")
    with ThreadPoolExecutor(READERS) as pool:

        def begin(name: str, work: Callable[[], T]) -> Callable[[], T]:
            """Reading a file; what it makes of it is there when it is asked for."""
            return work if files.size_bytes(name) <= AT_ONCE_BYTES else pool.submit(work).result

        try:
            reading = {
                part: [
                    begin(
                        name,
                        partial(
                            read_tensors,
                            files,
                            name,
                            dtype=dtype,
                            device=devices[part],
                            later=None if later is None else later.read,
                        ),
                    )
                    for name in names[part]
                ]
                for part, dtype in wanted.items()
            }
            kept = {name for of_part in names.values() for name in of_part}
            others = sorted(files.listed - kept) if later is None else ()
            checking = [begin(name, partial(files.check, name)) for name in others]

            def tensors(part: str) -> dict[str, Tensor]:
                merged: dict[str, Tensor] = {}
                for shard in reading.pop(part):
                    merged |= shard()
                return merged

            yield tensors
            for check in checking:
                check()
            if later is not None:
                later.unread.extend(
                    partial(files.check, name) for name in files.unread if name not in kept
                )
        finally:
            pool.shutdown(cancel_futures=True)


def _text(
    base: BaseFolder, tensors: Tensors, device: torch.device | str
) -> tuple[CLIPTokenizer, Any, SecondEncoder | None]:
    # Their words come first, while the weights are read.
    tokenizer = _tokenizer(base, "tokenizer")
    has_two = "text_encoder_2" in base.configs
    other_tokenizer = _tokenizer(base, "tokenizer_2") if has_two else None
    encoder = _transformers_part(CLIPTextModel, "text_encoder", base, tensors).to(device)
    if other_tokenizer is None:
        return tokenizer, encoder, None
    other = _transformers_part(CLIPTextModelWithProjection, "text_encoder_2", base, tensors)
    return tokenizer, encoder, SecondEncoder(other_tokenizer, other.to(device))


def _tokenizer(base: BaseFolder, part: str) -> CLIPTokenizer:
    read = partial(CLIPTokenizer.from_pretrained, local_files_only=True)
    tokenizer: CLIPTokenizer = read_words(base.files, part, read)
    return tokenizer


def _diffusers_part(kind: Any, part: str, base: BaseFolder, tensors: Tensors) -> Any:
    name = f"{base.files.folder.name}/{part}"
    return assemble_diffusers(kind, base.configs[part], partial(tensors, part), name)


def _transformers_part(kind: Any, part: str, base: BaseFolder, tensors: Tensors) -> Any:
    name = f"{base.files.folder.name}/{part}"
    return assemble_transformers(kind, base.configs[part], tensors(part), name)
