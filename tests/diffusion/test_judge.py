import pytest
from PIL import Image

from core.errors import ModelUnsupported, UntrustedModel
from diffusion.judge import Judge
from tests.tiny_judge import write_judge


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
