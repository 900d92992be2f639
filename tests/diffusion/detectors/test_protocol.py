import math

import pytest
from PIL import Image

from core.errors import DetectorFailed, DetectorNotUsable
from diffusion.detectors.protocol import DetectorIdentity, judge

PICTURES = [Image.new("RGB", (4, 4))] * 3


class Scripted:
    """Gives the scores it was told to, or raises what it was told to."""

    identity = DetectorIdentity(name="scripted", version="1", classes=("axe",), threshold=0.5)

    def __init__(self, scores):
        self._scores = scores

    def scores(self, pictures):
        if isinstance(self._scores, Exception):
            raise self._scores
        return [{"axe": score} for score in self._scores]


def test_a_score_at_the_threshold_shows_it():
    verdicts = judge(Scripted([0.5, 0.49, 1.0]), PICTURES)
    assert [verdict.shown for verdict in verdicts] == [True, False, True]


def test_any_class_at_the_threshold_shows_it():
    class Two(Scripted):
        identity = DetectorIdentity(name="2", version="1", classes=("axe", "bow"), threshold=0.5)

        def scores(self, pictures):
            return [{"axe": 0.1, "bow": 0.6, "cat": 0.9}, {"axe": 0.4, "bow": 0.2}]

    first, second = judge(Two([]), PICTURES[:2])
    assert (first.seen, first.shown) == ("bow", True)
    assert (second.seen, second.shown) == ("axe", False)


def test_a_class_without_a_score_is_an_error():
    class Forgetful(Scripted):
        def scores(self, pictures):
            return [{} for _ in pictures]

    with pytest.raises(DetectorFailed, match="for 'axe'"):
        judge(Forgetful([]), PICTURES)


@pytest.mark.parametrize(
    "scores",
    [
        pytest.param([0.1, 0.1], id="a picture left out"),
        pytest.param([0.1, 0.1, math.nan], id="not a number"),
        pytest.param([0.1, 0.1, 1.01], id="more than certain"),
        pytest.param(RuntimeError("a broken session"), id="broken"),
    ],
)
def test_a_detector_that_does_not_judge_is_an_error_and_never_safe(scores):
    with pytest.raises(DetectorFailed, match="detector scripted"):
        judge(Scripted(scores), PICTURES)


def test_an_error_with_a_name_keeps_it():
    with pytest.raises(DetectorNotUsable, match="no weights"):
        judge(Scripted(DetectorNotUsable("no weights")), PICTURES)
