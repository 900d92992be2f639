"""A single file without configs or tokenizer: those of the published models fit it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from core.errors import ModelUnsupported
from core.importing import read_family
from diffusion.erasure import Erasure
from diffusion.loading import load_base
from diffusion.originals import architectures
from diffusion.originals.architectures import write_settings
from diffusion.originals.clip_words import write_tokenizer
from diffusion.originals.single_file import _shapes, unpack_single_file, write_single_file
from tests.tiny_model import FAMILIES, make_model

NAMES = {
    "sd1": {"cond_stage_model.transformer.text_model.final_layer_norm.bias"},
    "sd2": {"cond_stage_model.model.ln_final.bias"},
    "sdxl": {"conditioner.embedders.1.model.ln_final.bias"},
}
# What the published models have, as their papers and cards count them.
PARAMETERS = {
    "sd1": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sd2": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sdxl": {
        "unet": 2_567_463_684,
        "vae": 83_653_863,
        "text_encoder": 123_060_480,
        "text_encoder_2": 694_659_840,
    },
}


def settings(folder, family, *more, metadata=None, prediction=None):
    write_settings(folder, NAMES[family] | {*more}, metadata or {}, prediction=prediction)
    return {
        "scheduler": json.loads((folder / "scheduler/scheduler_config.json").read_text()),
        "unet": json.loads((folder / "unet/config.json").read_text()),
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_the_configs_are_those_of_the_published_models(tmp_path, family):
    settings(tmp_path, family, prediction="epsilon")
    found = {
        part: sum(torch.Size(shape).numel() for shape in _shapes(tmp_path / part).values())
        for part in PARAMETERS[family]
    }

    assert found == PARAMETERS[family]
    assert read_family(tmp_path)[0] == family


def test_the_tokenizer_is_clips(tmp_path):
    """Numbers that the published tokenizer gives."""
    write_tokenizer(tmp_path / "tokenizer", pad="!")
    tokenizer = CLIPTokenizer.from_pretrained(str(tmp_path / "tokenizer"), local_files_only=True)

    assert len(tokenizer) == 49408
    assert tokenizer("a photo of a Cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert tokenizer("é", padding="max_length").input_ids[2:] == [49407, *[0] * 74]


class TestWhatIsPredicted:
    def test_a_2_x_that_does_not_say_is_refused(self, tmp_path):
        with pytest.raises(ModelUnsupported, match=r"--prediction epsilon .* v_prediction"):
            settings(tmp_path, "sd2")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("stated", "side"),
        [
            pytest.param({"prediction": "epsilon"}, 64, id="by the user"),
            pytest.param({"metadata": {"modelspec.prediction_type": "v"}}, 96, id="by the file"),
        ],
    )
    def test_its_size_follows_from_what_it_predicts(self, tmp_path, stated, side):
        assert settings(tmp_path, "sd2", **stated)["unet"]["sample_size"] == side

    @pytest.mark.parametrize("family", ["sd1", "sdxl"])
    def test_others_predict_noise_unless_they_say_otherwise(self, tmp_path, family):
        plain = settings(tmp_path / "plain", family)["scheduler"]
        marked = settings(tmp_path / "marked", family, "v_pred", "ztsnr")["scheduler"]

        assert plain["prediction_type"] == "epsilon"
        assert "rescale_betas_zero_snr" not in plain
        assert marked["prediction_type"] == "v_prediction"
        assert marked["rescale_betas_zero_snr"] is True


@pytest.fixture(params=FAMILIES)
def tiny(request, tmp_path, monkeypatch):
    """A tiny model of each family, whose configs are taken for the published ones."""
    family = request.param
    folder = make_model(tmp_path / family, family=family)
    read = {
        path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/*config.json")
    }
    index = json.loads((folder / "model_index.json").read_text())
    known = {part: config for part, config in read.items() if "tokenizer" not in part}
    known["pipeline"] = index["_class_name"]
    known["prediction"] = known["scheduler"].pop("prediction_type", "epsilon")
    monkeypatch.setattr(architectures, "_known", lambda: {family: known})
    return folder


def test_a_file_alone_becomes_the_model_that_it_was(tiny, tmp_path):
    before = load_base(tiny, None)
    write_single_file(tiny, Erasure(), tmp_path / "file.safetensors", dtype=torch.float32)
    unpack_single_file(tmp_path / "file.safetensors", None, tmp_path / "out")
    after = load_base(tmp_path / "out", None)

    for part in ("unet", "vae", "text_encoder"):
        theirs = dict(getattr(after, part).named_parameters())
        for name, parameter in getattr(before, part).named_parameters():
            assert theirs[name].equal(parameter), (part, name)
    assert after.scheduler_config["prediction_type"] == before.scheduler_config["prediction_type"]


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_an_exported_file_says_what_it_predicts(tiny, tmp_path, monkeypatch, prediction, zero_snr):
    """Neither names nor shapes tell; a model read as the other one draws noise."""
    [(family, known)] = architectures._known().items()
    known["prediction"] = None if family == "sd2" else "epsilon"
    known["scheduler"].pop("rescale_betas_zero_snr", None)
    monkeypatch.setattr(architectures, "_known", lambda: {family: known})
    path = tiny / "scheduler/scheduler_config.json"
    told = {"prediction_type": prediction, "rescale_betas_zero_snr": zero_snr}
    path.write_text(json.dumps(json.loads(path.read_text()) | told))

    write_single_file(tiny, Erasure(), tmp_path / "file.safetensors")
    unpack_single_file(tmp_path / "file.safetensors", None, tmp_path / "out")
    after = json.loads((tmp_path / "out/scheduler/scheduler_config.json").read_text())
    assert after["prediction_type"] == prediction
    assert bool(after.get("rescale_betas_zero_snr")) == zero_snr
    names = {*load_file(tmp_path / "file.safetensors")}
    assert ("v_pred" in names, "ztsnr" in names) == (prediction == "v_prediction", zero_snr)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_other_sizes_needs_one_like_it(tmp_path, family):
    folder, file = make_model(tmp_path / family, family=family), tmp_path / "file.safetensors"
    write_single_file(folder, Erasure(), file)
    with pytest.raises(ModelUnsupported, match=r"has the shape .* with --like"):
        unpack_single_file(file, None, tmp_path / "out", prediction="epsilon")


def test_a_file_says_of_itself_what_it_predicts(tmp_path):
    """Were it not heard, the file would be refused for not saying it, not for its sizes."""
    folder = make_model(tmp_path / "sd2", family="sd2")
    file = tmp_path / "file.safetensors"
    write_single_file(folder, Erasure(), file)
    save_file(load_file(file), file, metadata={"modelspec.prediction_type": "v"})
    with pytest.raises(ModelUnsupported, match="has the shape"):
        unpack_single_file(file, None, tmp_path / "out")
