from importlib.metadata import EntryPoint, EntryPoints
from types import SimpleNamespace

import pytest
from PIL import Image
from pydantic import ValidationError

from core.detection import DetectorSpec
from core.errors import DetectorNotUsable
from diffusion.detectors import loading
from diffusion.detectors.loading import load_detector
from diffusion.detectors.protocol import DetectorIdentity, judge
from tests.tiny_judge import write_judge


@pytest.fixture
def folder(tmp_path):
    return write_judge(tmp_path)


def picture(level):
    return Image.new("RGB", (16, 16), (level,) * 3)


def test_a_classifier_adds_up_the_probabilities_of_its_classes(folder):
    pictures = [picture(0), picture(255), picture(120)]
    dark, bright, either = (
        [
            scores[name]
            for scores in load_detector(DetectorSpec(classes=(name,)), model_folder=folder).scores(
                pictures
            )
        ]
        for name in ("dark", "bright ones", "light")
    )
    assert dark[0] > 0.5 > dark[1]
    assert [a + b for a, b in zip(dark, bright, strict=True)] == pytest.approx([1, 1, 1])
    assert either == pytest.approx([1, 1, 1])


def test_the_identity_says_all_that_decides_a_verdict(folder):
    spec = DetectorSpec(classes=("light",), threshold=0.25)
    identity = load_detector(spec, model_folder=folder).identity
    assert identity.classes == ("light",)
    assert identity.threshold == 0.25
    assert len(identity.version) == 16


def test_other_weights_are_another_version(folder, tmp_path):
    one = load_detector(DetectorSpec(classes=("light",)), model_folder=folder).identity
    path = folder / "classifier/model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    other = load_detector(DetectorSpec(classes=("light",)), model_folder=folder).identity
    assert other.version != one.version


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param({"classes": ["sound"]}, "no concept or group 'sound'", id="unknown class"),
        pytest.param({}, "say which concepts", id="no classes"),
        pytest.param({"name": "plugin:mine"}, "there are: none", id="plug-in not installed"),
    ],
)
def test_a_detector_that_cannot_run_is_refused(folder, spec, said):
    with pytest.raises(DetectorNotUsable, match=said):
        load_detector(DetectorSpec.model_validate(spec), model_folder=folder)


def test_a_model_without_a_classifier_is_refused(tmp_path):
    with pytest.raises(DetectorNotUsable, match="without a classifier"):
        load_detector(DetectorSpec(classes=("light",)), model_folder=tmp_path)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"name": "clasifier"}, id="misspelt"),
        pytest.param({"name": "plugin:"}, id="a plug-in without a name"),
        pytest.param({"threshold": 1.5}, id="threshold"),
        pytest.param({"convention": "core-0.5"}, id="another's convention"),
        pytest.param({"name": "nudenet", "convention": "core-0.5", "threshold": 0.3}, id="both"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(fields):
    with pytest.raises(ValidationError):
        DetectorSpec.model_validate(fields)


class Redness:
    """A user's own: how red a picture is."""

    def __init__(self, spec, model_folder):
        self.identity = DetectorIdentity(
            name="redness", version="1", classes=("red",), threshold=spec.threshold or 0.5
        )

    def scores(self, pictures):
        return [{"red": one.convert("RGB").getpixel((0, 0))[0] / 255} for one in pictures]


def install(monkeypatch, value):
    """Pretend that a package with an entry point is installed."""
    point = EntryPoint(name="mine", value=value, group=loading.ENTRY_POINTS)

    def found(*, group, name=None):
        return EntryPoints([point]).select(group=group, **({"name": name} if name else {}))

    monkeypatch.setattr(loading, "entry_points", found)
    monkeypatch.setitem(__import__("sys").modules, "plugged", SimpleNamespace(redness=Redness))


def test_a_users_own_detector_is_found_by_its_entry_point(monkeypatch, tmp_path):
    install(monkeypatch, "plugged:redness")
    spec = DetectorSpec(name="plugin:mine", threshold=0.9)
    detector = load_detector(spec, model_folder=tmp_path)
    shown = judge(detector, [Image.new("RGB", (1, 1), "red"), Image.new("RGB", (1, 1), "teal")])
    assert [verdict.shown for verdict in shown] == [True, False]


@pytest.mark.parametrize("value", ["plugged:greenness", "nowhere:redness"])
def test_a_plug_in_that_does_not_load_is_refused(monkeypatch, tmp_path, value):
    install(monkeypatch, value)
    with pytest.raises(DetectorNotUsable, match="does not load"):
        load_detector(DetectorSpec(name="plugin:mine"), model_folder=tmp_path)
