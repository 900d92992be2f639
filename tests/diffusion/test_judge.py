import json

import pytest
import torch
from PIL import Image
from transformers import ResNetConfig, ResNetForImageClassification

from core.errors import ModelUnsupported, UntrustedModel
from diffusion.judge import Judge

NAMES = ["dark", "bright"]


def write_judge(folder, *, names=NAMES):
    """A classifier of one pixel's worth of wisdom: it tells dark pictures from bright ones."""
    config = ResNetConfig(
        embedding_size=4,
        hidden_sizes=[4],
        depths=[1],
        layer_type="basic",
        id2label=dict(enumerate(NAMES)),
        label2id={name: number for number, name in enumerate(NAMES)},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ResNetForImageClassification(config).eval()
    with torch.no_grad():
        features = model.resnet(torch.full((1, 3, 16, 16), 1.0)).pooler_output.flatten()
        dull = model.resnet(torch.full((1, 3, 16, 16), -1.0)).pooler_output.flatten()
        model.classifier[1].weight.copy_(torch.stack([dull - features, features - dull]))
        middle = (features + dull) / 2
        model.classifier[1].bias.copy_(-model.classifier[1].weight @ middle)
    model.save_pretrained(str(folder / "classifier"))
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 16},
        "crop_size": {"height": 16, "width": 16},
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "classifier/preprocessor_config.json").write_text(json.dumps(processor))
    concepts = [
        {"name": name, "group": "light", "groups": ["light", f"{name} ones"]} for name in names
    ]
    (folder / "concepts.json").write_text(json.dumps({"concepts": concepts}))
    return folder


@pytest.fixture
def folder(tmp_path):
    return write_judge(tmp_path)


def picture(level, mode="RGB"):
    return Image.new("L", (20, 16), level).convert(mode)


def test_pictures_are_named_in_their_order(folder):
    judge = Judge.load(folder)
    pictures = [picture(255), picture(0), picture(250, "RGBA"), picture(5, "L")] * 30
    assert judge.names(pictures) == ["bright", "dark", "bright", "dark"] * 30
    assert judge.names([]) == []


def test_a_picture_shows_a_group_when_it_shows_one_of_its_members(folder):
    judge = Judge.load(folder)
    pictures = [picture(255), picture(0)]
    assert judge.shows(pictures, "dark ones") == [False, True]
    assert judge.shows(pictures, "light") == [True, True]


def test_a_group_that_nothing_is_in_is_refused(folder):
    with pytest.raises(ModelUnsupported, match="'sound'"):
        Judge.load(folder).shows([picture(0)], "sound")


def test_a_model_without_a_judge_is_refused(tmp_path):
    with pytest.raises(ModelUnsupported, match="without a classifier"):
        Judge.load(tmp_path)


def test_a_judge_of_other_concepts_is_refused(tmp_path):
    with pytest.raises(ModelUnsupported, match="different things"):
        Judge.load(write_judge(tmp_path, names=["dark", "loud"]))


def test_pickled_weights_are_refused(folder):
    (folder / "classifier/model.safetensors").rename(folder / "classifier/pytorch_model.bin")
    with pytest.raises(UntrustedModel, match=r"model\.safetensors"):
        Judge.load(folder)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_a_judge_with_a_missing_part_is_refused(folder, name):
    (folder / "classifier" / name).unlink()
    with pytest.raises(ModelUnsupported, match="broken"):
        Judge.load(folder)


@pytest.mark.parametrize("text", ["[]", "{", '{"concepts": [{"group": "weapon"}]}'])
def test_a_concept_list_that_is_none_is_refused(folder, text):
    (folder / "concepts.json").write_text(text)
    with pytest.raises(ModelUnsupported, match="not understood"):
        Judge.load(folder)
