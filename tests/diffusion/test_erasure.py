import copy
from dataclasses import replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from core.errors import ModelUnsupported, UntrustedModel
from diffusion.attention import text_projections
from diffusion.erasure import Erasure, write_tensors, write_unet
from tests.tiny_model import WIDTH


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def erasure():
    """A map far from the identity, and one changed tensor."""
    return Erasure(
        text_map=torch.eye(WIDTH) + 0.3 * noise(WIDTH, WIDTH, seed=1),
        tensors={"conv_in.bias": noise(8, seed=2)},
    )


def draw(unet, embeddings):
    latents = noise(len(embeddings), 4, 8, 8, seed=3).to(unet.dtype)
    with torch.no_grad():
        return unet(latents, 400, embeddings.to(unet.dtype)).sample


def test_mapping_the_prompt_and_baking_the_weights_are_the_same_model(unet, encoder, erasure):
    embeddings = encoder.encode_all(["a photo of an axe", ""]).embeddings
    baked = copy.deepcopy(unet)
    erasure.bake(baked)
    write_tensors(unet, erasure.tensors)

    mapped = draw(unet, erasure.map_prompts(embeddings))
    torch.testing.assert_close(draw(baked, embeddings), mapped, atol=1e-5, rtol=1e-4)
    assert (draw(unet, embeddings) - mapped).abs().max() > 1e-3


def test_its_maps_alone_are_moved_to_a_device(erasure):
    moved = replace(erasure, pooled_map=torch.eye(WIDTH)).maps_on("meta")

    assert moved.text_map.is_meta
    assert moved.pooled_map.is_meta
    assert moved.tensors == {}
    assert erasure.maps_on("cpu").text_map is erasure.text_map


def test_every_token_is_mapped(encoder, erasure):
    embedding = encoder.encode("a dog").embedding
    mapped = erasure.map_prompts(embedding)
    for token in (0, 3, 76):
        torch.testing.assert_close(mapped[token], erasure.text_map @ embedding[token])


def test_half_precision_prompts_are_mapped_in_full_precision(erasure):
    embedding = noise(77, WIDTH, seed=4).half()
    mapped = erasure.map_prompts(embedding)

    assert mapped.dtype == torch.float16
    exact = embedding.double() @ erasure.text_map.double().T
    assert torch.equal(mapped, exact.half()) or (mapped - exact).abs().max() < 2e-3


def test_no_erasure_changes_nothing(unet, encoder):
    embedding = encoder.encode("a dog").embedding
    before = copy.deepcopy(unet.state_dict())
    Erasure().bake(unet)

    assert Erasure().map_prompts(embedding) is embedding
    assert all(torch.equal(before[name], tensor) for name, tensor in unet.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_baked_weight_is_the_exact_product_rounded_once(unet, erasure, dtype):
    unet.to(dtype)
    name, projection = next(iter(text_projections(unet).items()))
    exact = projection.weight.double() @ erasure.text_map.double()
    erasure.bake(unet)

    weight = text_projections(unet)[name].weight
    assert weight.dtype == dtype
    assert torch.equal(weight, exact.to(dtype))


def test_what_is_saved_is_what_is_loaded(tmp_path, erasure):
    erasure.save(tmp_path / "erasure.safetensors", {"base": "0123"})
    loaded = Erasure.load(tmp_path / "erasure.safetensors")

    assert torch.equal(loaded.text_map, erasure.text_map)
    assert list(loaded.tensors) == ["conv_in.bias"]
    assert torch.equal(loaded.tensors["conv_in.bias"], erasure.tensors["conv_in.bias"])


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        pytest.param({"text_map": torch.full((4, 4), torch.nan)}, "not finite", id="not numbers"),
        pytest.param({"unet.a": torch.full((4,), torch.inf)}, "not finite", id="infinite"),
        pytest.param({"text_map": torch.zeros(4, 5)}, "not square", id="not square"),
        pytest.param({"vae.a": torch.zeros(4)}, "vae.a", id="unknown tensor"),
    ],
)
def test_an_erasure_that_cannot_be_right_is_refused(tmp_path, tensors, why):
    path = tmp_path / "erasure.safetensors"
    save_file(tensors, path, metadata={"trce-erasure-1": "{}"})
    with pytest.raises(UntrustedModel, match=why):
        Erasure.load(path)


@pytest.mark.parametrize("content", [b"", b"\x80\x04K\x01.", b"\xff" * 64])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "erasure.safetensors").write_bytes(content)
    with pytest.raises(UntrustedModel, match="cannot be read"):
        Erasure.load(tmp_path / "erasure.safetensors")


def test_other_safetensors_files_are_refused(tiny_folder):
    with pytest.raises(UntrustedModel, match="format"):
        Erasure.load(tiny_folder / "unet/diffusion_pytorch_model.safetensors")


def test_the_written_unet_is_an_ordinary_diffusers_folder(
    tmp_path, tiny_folder, unet, encoder, erasure
):
    embeddings = encoder.encode_all(["an axe"]).embeddings
    write_unet(tiny_folder / "unet", erasure, tmp_path / "unet")

    loaded = UNet2DConditionModel.from_pretrained(str(tmp_path / "unet"))
    erasure.bake(unet)
    torch.testing.assert_close(draw(loaded, embeddings), draw(unet, embeddings), atol=5e-3, rtol=0)
    assert sorted(p.suffix for p in (tmp_path / "unet").iterdir()) == [".json", ".safetensors"]


def test_what_a_file_holds_is_what_baking_gives_bit_for_bit(tmp_path, tiny_folder, unet, erasure):
    write_unet(tiny_folder / "unet", erasure, tmp_path / "unet", dtype=torch.float32)
    erasure.bake(unet)
    written = load_file(tmp_path / "unet/diffusion_pytorch_model.safetensors")
    assert {*written} == {name for name, _ in unet.named_parameters()}
    for name, parameter in unet.named_parameters():
        assert torch.equal(written[name], parameter)


def test_a_unet_that_half_precision_cannot_hold_is_refused(tmp_path, tiny_folder):
    large = Erasure(text_map=torch.eye(WIDTH) * 1e7)
    with pytest.raises(ModelUnsupported, match="too large"):
        write_unet(tiny_folder / "unet", large, tmp_path / "unet")


@pytest.mark.parametrize(
    "foreign",
    [
        Erasure(text_map=torch.eye(WIDTH + 1)),
        Erasure(tensors={"nowhere.weight": torch.zeros(1)}),
        Erasure(tensors={"conv_in.bias": torch.zeros(9)}),
    ],
    ids=["width", "name", "shape"],
)
def test_an_erasure_of_another_unet_is_refused_and_changes_nothing(unet, foreign):
    before = copy.deepcopy(unet.state_dict())
    with pytest.raises(ModelUnsupported):
        foreign.bake(unet)
    assert all(torch.equal(before[name], tensor) for name, tensor in unet.state_dict().items())
