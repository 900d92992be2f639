"""A part of a model from its config and its tensors, or its words; nothing is read from disk.

The libraries' own `from_pretrained` opens a folder by itself, and so would read files again after
they were checked.
"""

import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoImageProcessor

from core.errors import ModelUnsupported
from core.model_files import ModelFiles
from diffusion.full_memory import ran_out
from diffusion.weights import read_tensors

T = TypeVar("T")


def assemble_diffusers(
    kind: Any, config: Mapping[str, Any], read: Callable[[], dict[str, Tensor]], name: str
) -> Any:
    """A frozen module of diffusers, which takes the tensors that are `read` for its own.

    Args:
        read: called when the module is there, so that it is made while somebody reads.

    Raises:
        ModelUnsupported: they do not fit the config.
        Exception: what `read` raises.
    """
    try:
        # Its parameters have no memory yet, so nothing is made up at random either.
        with torch.device("meta"):
            module = kind.from_config(dict(config))
    except (RuntimeError, ValueError, TypeError) as error:
        raise _unfit(name, error) from error
    tensors = read()
    try:
        # As its own loader does: attention of old VAEs goes by other names.
        module._fix_state_dict_keys_on_load(tensors)  # noqa: SLF001
        told = module.load_state_dict(tensors, strict=False, assign=True)
    except (RuntimeError, ValueError, TypeError) as error:
        raise _unfit(name, error) from error
    return _frozen(module, told.missing_keys, name)


def shapes_of(kind: Any, config: Mapping[str, Any], name: str) -> dict[str, tuple[int, ...]]:
    """Of the parameters that a module of diffusers has by its config.

    Raises:
        ModelUnsupported: nothing can be made of it.
    """
    try:
        with torch.device("meta"):
            module = kind.from_config(dict(config))
    except (RuntimeError, ValueError, TypeError) as error:
        raise _unfit(name, error) from error
    return {name: tuple(one.shape) for name, one in module.named_parameters()}


def assemble_transformers(
    kind: Any, config: Mapping[str, Any], tensors: dict[str, Tensor], name: str
) -> Any:
    """The same of a module of transformers, on the CPU, which is where its library puts it.

    Args:
        tensors: on the CPU too, all of one dtype; then they are taken as they are.

    Raises:
        ModelUnsupported: they do not fit the config.
    """
    dtype = next((one.dtype for one in tensors.values() if one.is_floating_point()), torch.float32)
    try:
        module, told = kind.from_pretrained(
            None,
            config=kind.config_class.from_dict(dict(config)),
            state_dict=tensors,
            dtype=dtype,
            output_loading_info=True,
        )
    except (RuntimeError, ValueError, TypeError) as error:
        if ran_out(error):
            raise
        raise _unfit(name, error) from error
    return _frozen(module, told["missing_keys"], name)


def read_transformers(kind: Any, files: ModelFiles, part: str) -> Any:
    """A part in one file, in float32 on the CPU.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    config = files.read_json(f"{part}/config.json")
    tensors = read_tensors(files, f"{part}/model.safetensors", dtype=torch.float32, device="cpu")
    return assemble_transformers(kind, config, tensors, f"{files.folder.name}/{part}")


def assemble_auto(kind: Any, files: ModelFiles, part: str) -> Any:
    """The same of whatever class its config names, of those that transformers knows by itself.

    Raises:
        UntrustedModel, ModelUnsupported.
    """
    document = files.read_json(f"{part}/config.json")
    try:
        with torch.device("meta"):
            found = kind.from_config(AutoConfig.for_model(**document), trust_remote_code=False)
    except (RuntimeError, ValueError, TypeError) as error:
        raise _unfit(f"{files.folder.name}/{part}", error) from error
    return read_transformers(type(found), files, part)


def read_processor(files: ModelFiles, part: str) -> Any:
    """What makes pixels of pictures for the model in `part`. Raises as `read_words` does."""
    read = partial(
        AutoImageProcessor.from_pretrained, local_files_only=True, trust_remote_code=False
    )
    return read_words(files, part, read)


def read_words(files: ModelFiles, part: str, read: Callable[[str], T]) -> T:
    """What `read` makes of a folder that holds only checked copies of the small files of `part`.

    Tokenizers and image processors can be read from a folder only. This one is in nobody else's
    reach, and is gone afterwards.

    Raises:
        UntrustedModel: a file is not as the manifest says.
        ModelUnsupported: `read` cannot read it.
    """
    with tempfile.TemporaryDirectory(prefix="trce-") as private:
        for name in files.below(part):
            if PurePosixPath(name).suffix != ".safetensors":
                copy = Path(private) / name
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(files.read(name))
        try:
            return read(str(Path(private) / part))
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ModelUnsupported(
                f"{files.folder.name}/{part} cannot be read: {error}"
            ) from error


def _unfit(name: str, error: Exception) -> ModelUnsupported:
    return ModelUnsupported(f"{name}: its weights do not fit its config: {error}")


def _frozen(module: nn.Module, missing: Any, name: str) -> nn.Module:
    # A parameter that is not in the file would be made up at random, or have no memory.
    bare = [name for name, one in module.named_buffers() if one.is_meta]
    if missing := sorted({*missing, *bare}):
        raise ModelUnsupported(f"{name}: its weights lack {missing[0]}, and {len(missing)} in all")
    return module.eval().requires_grad_(False)
