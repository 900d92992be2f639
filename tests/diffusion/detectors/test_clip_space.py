"""Zero-shot, the probe, and the space they judge in: the shipped model's own."""

import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from core.detection import DetectorSpec
from core.errors import DetectorNotUsable, ModelUnsupported, UntrustedModel
from core.settings import SHIPPED_MODELS
from diffusion.detectors.loading import load_detector
from diffusion.detectors.probe import CLASS, fit_probe
from diffusion.detectors.protocol import judge
from diffusion.likeness import Likeness

EMOJI = SHIPPED_MODELS / "emoji"


@pytest.fixture(scope="module")
def likeness():
    return Likeness.load(EMOJI)


@pytest.fixture
def folder(tmp_path):
    """The parts of the shipped model that this is about."""
    for part in ("image_encoder", "text_encoder", "tokenizer"):
        shutil.copytree(EMOJI / part, tmp_path / part)
    shutil.copy(EMOJI / "concepts.json", tmp_path)
    return tmp_path


def colours(*names):
    return [Image.new("RGB", (64, 64), name) for name in names]


def test_embeddings_have_length_one_and_keep_their_order(likeness):
    pictures = colours("red", "blue", "white") * 40
    found = likeness.pictures(pictures)
    assert found.shape == (120, likeness.width)
    assert torch.allclose(found.norm(dim=1), torch.ones(120), atol=1e-5)
    assert torch.allclose(found[:3], found[-3:], atol=1e-5)
    assert likeness.texts(["a cat"] * 70 + ["a dog"]).shape == (71, likeness.width)
    assert likeness.pictures([]).shape == (0, likeness.width)


def test_zero_shot_gives_each_phrase_its_share(folder):
    spec = DetectorSpec(name="zero-shot", classes=("a pistol", "a sword"))
    detector = load_detector(spec, model_folder=folder)
    [scores] = detector.scores(colours("white"))
    assert set(scores) == {"a pistol", "a sword"}
    assert 0 < sum(scores.values()) < 1


def test_a_phrase_that_counts_is_not_among_the_ordinary_ones(folder):
    one = load_detector(DetectorSpec(name="zero-shot", classes=("a pistol",)), model_folder=folder)
    both = load_detector(
        DetectorSpec(name="zero-shot", classes=("a pistol", "a sword")), model_folder=folder
    )
    assert len(one._phrases) == len(both._phrases)


def test_a_fitted_probe_tells_its_pictures_apart(folder, likeness):
    warm, cold = colours("red", "orange", "yellow"), colours("blue", "navy", "teal", "cyan")
    shown = torch.tensor([True] * 3 + [False] * 4)
    fit_probe(likeness.pictures(warm + cold), shown, folder / "probe.safetensors", scale=20.0)
    detector = load_detector(DetectorSpec(name="probe"), model_folder=folder)

    assert [verdict.shown for verdict in judge(detector, warm + cold)] == shown.tolist()
    assert detector.identity.classes == (CLASS,)


@pytest.mark.parametrize("name", ["zero-shot", "probe"])
def test_without_an_image_encoder_there_is_nothing_to_judge_by(folder, name):
    shutil.rmtree(folder / "image_encoder")
    spec = DetectorSpec(name=name, classes=("a cat",) if name == "zero-shot" else ())
    with pytest.raises(DetectorNotUsable, match="without an image encoder"):
        load_detector(spec, model_folder=folder)


def test_a_probe_of_another_width_is_refused(folder):
    save_file(
        {"vectors": torch.ones(2, 7), "scale": torch.tensor(1.0)}, folder / "probe.safetensors"
    )
    with pytest.raises(DetectorNotUsable, match=r"shape \(2, 7\)"):
        load_detector(DetectorSpec(name="probe"), model_folder=folder)


def test_a_probe_that_is_not_there_is_refused(folder):
    with pytest.raises(DetectorNotUsable, match="missing or no probe"):
        load_detector(DetectorSpec(name="probe"), model_folder=folder)


def test_pickled_and_broken_encoders_are_refused(folder):
    (folder / "image_encoder/config.json").write_text("{")
    with pytest.raises(ModelUnsupported, match="broken"):
        Likeness.load(folder)
    (folder / "image_encoder/model.safetensors").unlink()
    with pytest.raises(UntrustedModel, match=r"no model\.safetensors"):
        Likeness.load(folder)
