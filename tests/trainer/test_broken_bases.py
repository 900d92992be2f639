"""Weights that are damaged in ways a digest does not tell: nothing is made of them."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import ModelUnsupported, SingularEdit
from core.specs import ErasureSpec
from trainer.erase import erase

SPEC = ErasureSpec.model_validate(
    {"base_model": "tiny", "concepts": [{"name": "axe", "replacement": "flower"}]}
)
STEERING = {"steps": 1, "trajectories": 1, "anchor_trajectories": 1, "learning_rate": 1e-4}
UNET = "unet/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"


@pytest.fixture(params=[None, STEERING], ids=["stage 1", "both stages"])
def refused(tiny_folder, tmp_path, request, monkeypatch):
    """Erase from the tiny model with one file changed; nothing may be left of it."""
    monkeypatch.setattr("trainer.steered.prepare_lesson", lambda *a, **k: pytest.fail("drawn"))
    fields = SPEC.model_dump(exclude_unset=True) | {"steering": request.param}
    spec = ErasureSpec.model_validate(fields)

    def run(file, change, error, why):
        base = shutil.copytree(tiny_folder, tmp_path / "base")
        tensors = load_file(base / file)
        change(tensors)
        save_file(tensors, base / file, metadata={"format": "pt"})
        cache = tmp_path / "cache"
        with pytest.raises(error, match=why):
            erase(
                *(base, None, spec, tmp_path / "out", lambda _: None), model_id="out", cache=cache
            )
        assert {path.name for path in tmp_path.iterdir()} <= {"base", "cache"}
        return list(cache.glob("*")) if cache.exists() else []

    return run


def test_a_text_encoder_with_nan_in_it(refused):
    def spoil(tensors):
        tensors["final_layer_norm.weight"][3] = torch.nan

    assert refused(TEXT, spoil, SingularEdit, "not finite") == []


def test_a_unet_with_nan_where_text_is_read(refused):
    def spoil(tensors):
        name = next(name for name in tensors if name.endswith("attn2.to_k.weight"))
        tensors[name][0, 0] = torch.nan

    refused(UNET, spoil, ModelUnsupported, r"attn2\.to_k\.weight.*not finite")


def test_a_unet_with_infinity_anywhere(refused):
    def spoil(tensors):
        tensors["conv_in.bias"][0] = torch.inf

    refused(UNET, spoil, ModelUnsupported, r"conv_in\.bias.*not finite")


def test_a_text_encoder_that_lacks_a_tensor_is_not_made_up_at_random(refused):
    def spoil(tensors):
        del tensors["encoder.layers.0.mlp.fc1.weight"]

    refused(TEXT, spoil, ModelUnsupported, r"text_encoder.*lack.*mlp\.fc1\.weight")


def test_a_text_encoder_that_does_not_match_its_config(refused):
    def spoil(tensors):
        tensors["embeddings.token_embedding.weight"] = torch.zeros(7, 24)

    refused(TEXT, spoil, ModelUnsupported, r"text_encoder.*do not fit")
