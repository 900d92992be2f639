import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from core.errors import ModelUnsupported, UntrustedModel
from core.making import describe
from core.manifests import Drawing
from diffusion.loading import load_base


@pytest.fixture
def folder(tiny_folder, tmp_path):
    return shutil.copytree(tiny_folder, tmp_path / "model")


def manifest_of(folder):
    drawing = Drawing(native_px=16, multiple_px=4, max_px=32)
    return describe(folder, model_id="m", family="sd1", drawing=drawing, code_version="0")


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_model_is_loaded_as_it_was_saved(folder):
    parts = load_base(folder, manifest_of(folder))

    saved = load_file(folder / "unet/diffusion_pytorch_model.safetensors")
    for name, tensor in parts.unet.state_dict().items():
        assert torch.equal(tensor, saved[name])
    assert parts.family == "sd1"
    assert parts.scheduler_config["_class_name"] == "DDIMScheduler"


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"_class_name": "RePaintScheduler"}, "its scheduler is RePaintScheduler"),
        ({"beta_schedule": "steep"}, "does not work as scheduler/scheduler_config.json has it"),
        ({"num_train_timesteps": -3}, "does not work"),
    ],
    ids=["another class", "no schedule", "no steps"],
)
def test_a_scheduler_that_cannot_draw_is_refused_when_its_model_is_loaded(folder, own, says):
    change_json(folder / "scheduler/scheduler_config.json", **own)
    with pytest.raises(ModelUnsupported, match=says):
        load_base(folder, None)


def test_nothing_of_it_can_be_trained_by_accident(folder):
    parts = load_base(folder, None)
    for module in (parts.unet, parts.vae, parts.text_encoder):
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())


def test_it_has_the_precision_that_was_asked_for(folder):
    parts = load_base(folder, None, dtype=torch.float16)
    assert {parts.unet.dtype, parts.vae.dtype, parts.text_encoder.dtype} == {torch.float16}


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
    ids=["gpu", "cpu"],
)
def test_memory_that_runs_out_is_no_fault_of_the_weights(folder, monkeypatch, error):
    def full(*_, **__):
        raise error

    monkeypatch.setattr("diffusion.loading.CLIPTextModel.from_pretrained", full)
    with pytest.raises(RuntimeError) as caught:
        load_base(folder, None)
    assert caught.value is error


@pytest.mark.parametrize(
    "name", ["unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"]
)
def test_one_changed_byte_is_refused(folder, name):
    manifest = manifest_of(folder)
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)

    with pytest.raises(UntrustedModel, match=name):
        load_base(folder, manifest)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_are_not_safetensors_are_refused(folder, part):
    weights = next((folder / part).glob("*.safetensors"))
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()

    with pytest.raises(UntrustedModel, match="safetensors"):
        load_base(folder, None)


def test_another_pipeline_is_refused_by_name(folder):
    change_json(folder / "model_index.json", _class_name="FluxPipeline")
    with pytest.raises(ModelUnsupported, match="FluxPipeline"):
        load_base(folder, None)


def test_a_part_of_another_class_is_refused(folder):
    change_json(folder / "model_index.json", text_encoder=["transformers", "T5EncoderModel"])
    with pytest.raises(ModelUnsupported, match="T5EncoderModel"):
        load_base(folder, None)


@pytest.mark.parametrize("part", ["tokenizer", "unet", "vae", "text_encoder"])
def test_a_missing_part_is_named(folder, part):
    shutil.rmtree(folder / part)
    with pytest.raises(ModelUnsupported, match=part):
        load_base(folder, None)


@pytest.mark.parametrize(
    "change",
    [{"time_cond_proj_dim": 8}, {"class_embed_type": "timestep"}],
    ids=lambda c: next(iter(c)),
)
def test_a_unet_that_wants_more_than_text_is_refused(folder, change):
    from diffusers import UNet2DConditionModel

    config = UNet2DConditionModel.load_config(str(folder / "unet"))
    UNet2DConditionModel.from_config(config | change).save_pretrained(str(folder / "unet"))

    with pytest.raises(ModelUnsupported, match=next(iter(change))):
        load_base(folder, None)


def test_an_inpainting_model_is_refused(folder):
    from diffusers import UNet2DConditionModel

    config = UNet2DConditionModel.load_config(str(folder / "unet"))
    UNet2DConditionModel.from_config(config | {"in_channels": 9}).save_pretrained(
        str(folder / "unet")
    )

    with pytest.raises(ModelUnsupported, match="9"):
        load_base(folder, None)


def test_a_text_encoder_of_another_width_is_refused(folder):
    from diffusers import UNet2DConditionModel

    config = UNet2DConditionModel.load_config(str(folder / "unet"))
    narrow = UNet2DConditionModel.from_config(config | {"cross_attention_dim": 12})
    narrow.save_pretrained(str(folder / "unet"))

    with pytest.raises(ModelUnsupported, match="width 12"):
        load_base(folder, None)
