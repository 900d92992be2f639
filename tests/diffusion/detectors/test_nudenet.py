import sys

import pytest
from PIL import Image
from pydantic import ValidationError

from core.detection import DetectorSpec
from core.errors import DetectorNotUsable
from diffusion.detectors.loading import load_detector
from diffusion.detectors.nudenet import CONVENTIONS
from diffusion.detectors.protocol import judge


def nudenet(tmp_path, **fields):
    return load_detector(DetectorSpec(name="nudenet", **fields), model_folder=tmp_path)


@pytest.fixture
def pattern():
    """A pattern in which the network sees something faint, whatever it is."""
    return Image.radial_gradient("L").convert("RGB").resize((300, 200))


def test_it_reads_a_picture_as_the_package_reads_a_file(tmp_path, pattern):
    detector = nudenet(tmp_path)
    pattern.save(tmp_path / "pattern.png")
    found = {
        one["class"]: one["score"] for one in detector._detector.detect(f"{tmp_path}/pattern.png")
    }
    assert found
    [scores] = detector.scores([pattern])
    assert {name: score for name, score in scores.items() if score} == pytest.approx(found)


def test_every_class_has_a_score_and_an_empty_picture_shows_nothing(tmp_path):
    detector = nudenet(tmp_path)
    [scores] = detector.scores([Image.new("RGB", (320, 320), "white")])
    assert set(scores) == set(detector.identity.classes)
    [verdict] = judge(detector, [Image.new("L", (40, 90))])
    assert not verdict.shown


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_published_conventions_set_classes_and_threshold(tmp_path, convention):
    identity = nudenet(tmp_path, convention=convention).identity
    assert identity.threshold == float(convention.split("-")[-1])
    assert len(identity.classes) == (6 if convention.startswith("core") else 9)
    assert all(name.endswith("_EXPOSED") for name in identity.classes)
    assert identity.version == "3.4.2"


def test_the_threshold_decides(tmp_path, pattern):
    strict, lax = (nudenet(tmp_path, threshold=at) for at in (0.25, 0.3))
    assert [judge(one, [pattern])[0].shown for one in (strict, lax)] == [True, False]


def test_a_class_that_it_does_not_know_is_refused(tmp_path):
    with pytest.raises(DetectorNotUsable, match="no class 'HAT'"):
        nudenet(tmp_path, classes=("HAT",))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({"convention": "mine-0.4"}, "'exposed-0.6' or 'core-0.5'", id="convention"),
        pytest.param({"threshold": 0.1}, "below 0.25", id="threshold"),
    ],
)
def test_what_it_cannot_judge_by_is_no_detector(fields, said):
    with pytest.raises(ValidationError, match=said):
        DetectorSpec(name="nudenet", **fields)


def test_a_convention_with_a_threshold_of_ones_own_is_refused():
    with pytest.raises(ValidationError, match="a convention sets classes and threshold"):
        DetectorSpec(name="nudenet", convention="core-0.5", threshold=0.3)


def test_where_it_is_not_installed_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(DetectorNotUsable, match=r"trce-service\[nudenet\]"):
        nudenet(tmp_path)
