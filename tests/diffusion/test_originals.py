"""The original layout, against the loader of diffusers, which is what others' files go through."""

import shutil

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors.torch import load_file, save_file

from core.errors import ModelUnsupported, UntrustedModel
from diffusion.erasure import Erasure
from diffusion.loading import load_base
from diffusion.originals.single_file import unpack_single_file, write_single_file
from tests.tiny_model import FAMILIES, PROJECTED, WIDTH, WIDTH_2, make_model


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory, family):
    return make_model(tmp_path_factory.mktemp("originals") / family, family=family)


@pytest.fixture(scope="module")
def file(folder):
    path = folder.parent / "model.safetensors"
    write_single_file(folder, Erasure(), path, dtype=torch.float32)
    return path


def erasure_for(family):
    width = WIDTH + WIDTH_2 if family == "sdxl" else WIDTH
    draw = torch.Generator().manual_seed(3)
    text_map = torch.eye(width) + 0.2 * torch.randn(width, width, generator=draw)
    pooled_map = torch.eye(PROJECTED) * 0.5 if family == "sdxl" else None
    return Erasure(text_map, {"conv_in.bias": torch.ones(8)}, pooled_map)


def same(module, other):
    theirs = dict(other.named_parameters())
    assert {name for name, _ in module.named_parameters()} == {*theirs}
    for name, parameter in module.named_parameters():
        torch.testing.assert_close(theirs[name], parameter, atol=0, rtol=0, msg=name)


@pytest.mark.parametrize("kind", [UNet2DConditionModel, AutoencoderKL])
def test_diffusers_reads_unet_and_vae_from_the_file_offline(folder, file, kind):
    part = "unet" if kind is UNet2DConditionModel else "vae"
    ours = getattr(load_base(folder, None), part)
    loaded = kind.from_single_file(
        str(file), config=str(folder), subfolder=part, local_files_only=True
    )
    same(ours, loaded)


def test_diffusers_finds_the_text_encoders_in_the_file(folder, file, family):
    """Its loader wants the true sizes of CLIP, so its key conversion is asked directly."""
    parts = load_base(folder, None)
    checkpoint = load_file(file)
    if family != "sd2":
        prefix = {
            "sd1": "cond_stage_model.transformer.",
            "sdxl": "conditioner.embedders.0.transformer.",
        }[family]
        converted = convert_ldm_clip_checkpoint(checkpoint, remove_prefix=prefix)
        for name, parameter in parts.text_encoder.named_parameters():
            key = name if name in converted else f"text_model.{name}"
            assert torch.equal(converted[key], parameter), name
    if family != "sd1":
        encoder = parts.text_encoder if family == "sd2" else parts.second.text_encoder
        prefix = {"sd2": "cond_stage_model.model.", "sdxl": "conditioner.embedders.1.model."}
        converted = convert_open_clip_checkpoint(encoder, checkpoint, prefix=prefix[family])
        for name, parameter in encoder.named_parameters():
            key = name if name in converted else f"text_model.{name}"
            assert torch.equal(converted[key], parameter), name


def test_an_erasure_is_in_the_file(folder, family, tmp_path):
    erasure = erasure_for(family)
    path = tmp_path / "erased.safetensors"
    write_single_file(folder, erasure, path, dtype=torch.float32)
    baked = load_base(folder, None).unet
    erasure.bake(baked)
    loaded = UNet2DConditionModel.from_single_file(
        str(path), config=str(folder), subfolder="unet", local_files_only=True
    )
    same(baked, loaded)


def test_there_and_back_is_the_same_model_bit_for_bit(folder, file, tmp_path):
    unpack_single_file(file, folder, tmp_path / "back")
    back, there = (load_base(place, None) for place in (tmp_path / "back", folder))
    for part in ("unet", "vae", "text_encoder"):
        same(getattr(there, part), getattr(back, part))
    if there.second is not None:
        same(there.second.text_encoder, back.second.text_encoder)
    assert back.prompt_encoder().digest() == there.prompt_encoder().digest()


def test_half_precision_is_the_default_and_halves_the_file(folder, file, tmp_path):
    path = tmp_path / "half.safetensors"
    write_single_file(folder, Erasure(), path)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    assert path.stat().st_size < 0.6 * file.stat().st_size


def test_a_file_of_another_family_is_refused(folder, file, family, tmp_path):
    other = make_model(tmp_path / "other", family="sd1" if family != "sd1" else "sdxl")
    with pytest.raises(ModelUnsupported, match="of the family"):
        unpack_single_file(file, other, tmp_path / "out")


def test_a_file_that_lacks_a_tensor_or_has_another_shape_is_refused(folder, file, tmp_path):
    tensors = load_file(file)
    key = "model.diffusion_model.time_embed.0.weight"
    whole = tensors.pop(key)
    save_file(tensors, tmp_path / "lacking.safetensors")
    with pytest.raises(ModelUnsupported, match=r"time_embed\.0\.weight is missing"):
        unpack_single_file(tmp_path / "lacking.safetensors", folder, tmp_path / "out")
    tensors[key] = torch.zeros(3, *whole.shape)
    save_file(tensors, tmp_path / "large.safetensors")
    with pytest.raises(ModelUnsupported, match="has the shape"):
        unpack_single_file(tmp_path / "large.safetensors", folder, tmp_path / "out")


def test_other_files_are_refused(folder, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(UntrustedModel, match="no safetensors file"):
        unpack_single_file(tmp_path / "a.safetensors", folder, tmp_path / "out")
    save_file({"a": torch.zeros(1)}, tmp_path / "b.safetensors")
    with pytest.raises(ModelUnsupported, match="no text encoder"):
        unpack_single_file(tmp_path / "b.safetensors", folder, tmp_path / "out")


def test_weights_too_large_for_half_precision_are_refused(folder, tmp_path):
    large = shutil.copytree(folder, tmp_path / "large")
    path = large / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["decoder.conv_in.bias"] += 1e6
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ModelUnsupported, match="too large"):
        write_single_file(large, Erasure(), tmp_path / "out.safetensors")
