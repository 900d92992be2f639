"""Every kind of bad input, through `python -m trainer`: told clearly, and nothing is written.

The erased model would have stood in a folder of models, which is as it was before.
"""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from trainer import room
from trainer.__main__ import main
from trainer.room import MIB

AXE = {"name": "axe", "replacement": "flower"}
TEXT = "text_encoder/model.safetensors"
UNET = "unet/diffusion_pytorch_model.safetensors"
STEERING = {"steps": 1, "trajectories": 1, "anchor_trajectories": 1, "learning_rate": 1e-4}


@pytest.fixture
def base(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "base")


@pytest.fixture
def refused(base, tmp_path, capfd):
    """Run the command on a spec; what it says when it refuses, and that it wrote nothing."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models/earlier").write_text("a model")

    def run(**fields):
        spec = tmp_path / "spec.yaml"
        spec.write_text(yaml.safe_dump({"base_model": "tiny", "concepts": [AXE]} | fields))
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        command = [str(spec), "--base", str(base), "--out", str(tmp_path / "models/out")]

        assert main([*command, "--progress", "json", "--threads", "1"]) == 2

        after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        assert after == before
        assert {path.name for path in (tmp_path / "models").iterdir()} == {"earlier"}
        error = json.loads(capfd.readouterr().out.splitlines()[-1])["error"]
        return f"{error['type']}: {error['detail']}"

    return run


@pytest.mark.parametrize(
    ("concepts", "textual", "kind", "says"),
    [
        pytest.param(
            [AXE | {"synonyms": ["漢字"]}],
            {},
            "ConceptInvalid",
            "missing from this model's vocabulary",
            id="words that the vocabulary lacks",
        ),
        pytest.param(
            [AXE | {"synonyms": []}],
            {},
            "ConceptInvalid",
            "the synonyms of concept 'axe' are an empty list; name some, or leave `synonyms` out",
            id="an empty list of synonyms",
        ),
        pytest.param(
            [AXE | {"descriptions": []}], {}, "ConceptInvalid", "empty list", id="no descriptions"
        ),
        pytest.param(
            [AXE | {"replacement": "Axe"}],
            {},
            "ConceptInvalid",
            "choose something that is to stay",
            id="target equal to source",
        ),
        pytest.param(
            [{"name": "Axe  axe", "replacement": "axe axe"}],
            {},
            "ConceptInvalid",
            "speaks of 'axe axe'",
            id="target equal to source but for a space",
        ),
        pytest.param(
            [{"name": "axes", "replacement": "an axe"}],
            {},
            "ConceptInvalid",
            "speaks of 'axes'",
            id="target the singular of the source",
        ),
        pytest.param(
            [{"name": "Axe-axe", "replacement": "axe - axe"}],
            {},
            "ConceptInvalid",
            "as the same tokens",
            id="target equal to source for this model",
        ),
        pytest.param(
            [AXE | {"synonyms": ["Axe"]}], {}, "ConceptInvalid", "list each once", id="duplicates"
        ),
        pytest.param([AXE, AXE], {}, "ConceptInvalid", "listed once", id="a concept twice"),
        pytest.param(
            [AXE],
            {"protect": ["an axe"]},
            "ConceptInvalid",
            "choose one",
            id="preserved and erased",
        ),
        pytest.param(
            [AXE],
            {"captions": ["an axe in a barn", "two axes"]},
            "ConceptInvalid",
            "textual.captions: all 2 speak of what is erased ('an axe in a barn' of 'axe')",
            id="nothing to preserve",
        ),
        pytest.param(
            [AXE], {"preserve": 1e-9, "ridge": 0.0}, "SingularEdit", "raise `ridge`", id="singular"
        ),
        pytest.param(
            [AXE], {"preserve": float("nan")}, "ConceptInvalid", "textual.preserve", id="NaN asked"
        ),
    ],
)
def test_a_spec_that_cannot_be(refused, concepts, textual, kind, says):
    error = refused(concepts=concepts, textual=textual)
    assert error.startswith(kind)
    assert says in error


@pytest.mark.parametrize(
    ("file", "tensor", "kind"),
    [
        pytest.param(TEXT, "final_layer_norm.weight", "SingularEdit", id="text encoder"),
        pytest.param(UNET, "conv_in.weight", "ModelUnsupported", id="UNet"),
    ],
)
@pytest.mark.parametrize("steering", [None, STEERING], ids=["stage 1", "both stages"])
def test_nan_in_the_weights(base, refused, file, tensor, kind, steering):
    change(base / file, tensor, lambda weight: weight.flatten()[0].fill_(torch.nan))
    error = refused(steering=steering)
    assert error.startswith(kind)
    assert "not finite" in error


def test_a_pipeline_of_another_class(base, refused):
    index = json.loads((base / "model_index.json").read_text())
    (base / "model_index.json").write_text(json.dumps(index | {"_class_name": "FluxPipeline"}))
    error = refused()
    assert error.startswith("ModelUnsupported")
    assert "FluxPipeline" in error


def test_a_text_encoder_that_is_not_the_checkpoints(base, refused):
    """Its weights do not fit its own config."""
    change(base / TEXT, "embeddings.token_embedding.weight", lambda weight: weight.resize_(7, 24))
    error = refused()
    assert error.startswith("ModelUnsupported")
    assert "text_encoder" in error


def test_a_text_encoder_of_another_width_than_the_unet_reads(base, refused):
    config = json.loads((base / "unet/config.json").read_text())
    (base / "unet/config.json").write_text(json.dumps(config | {"cross_attention_dim": 32}))
    error = refused()
    assert error.startswith("ModelUnsupported")
    assert "24" in error
    assert "32" in error


def test_too_little_memory(refused, monkeypatch):
    monkeypatch.setattr(room, "free_memory_bytes", lambda device: 3 * MIB)
    error = refused()
    assert error.startswith("NotEnoughRoom")
    assert "MiB of memory, and 3 MiB are free" in error


def test_too_little_disk(refused, monkeypatch):
    full = type("Usage", (), {"free": 3 * MIB})
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: full)
    error = refused()
    assert error.startswith("NotEnoughRoom")
    assert "MiB of disk" in error


def change(path, name, spoil):
    tensors = load_file(path)
    with torch.no_grad():
        spoil(tensors[name])
    save_file(tensors, path, metadata={"format": "pt"})
