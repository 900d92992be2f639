import pytest
from pydantic import ValidationError

from core.specs import Concept, ErasureSpec, GenerationSpec


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"prompt": ""}, id="empty prompt"),
        pytest.param({"prompt": "   "}, id="blank prompt"),
        pytest.param({"prompt": "x" * 1001}, id="over-long prompt"),
        pytest.param({"prompt": "a\x00b"}, id="NUL"),
        pytest.param({"num_inference_steps": 0}, id="no steps"),
        pytest.param({"num_inference_steps": 101}, id="too many steps"),
        pytest.param({"guidance_scale": -1}, id="negative guidance"),
        pytest.param({"guidance_scale": float("nan")}, id="NaN guidance"),
        pytest.param({"n": 9}, id="too many pictures"),
        pytest.param({"seed": -1}, id="negative seed"),
        pytest.param({"seed": 2**63}, id="huge seed"),
        pytest.param({"model": "../etc"}, id="path for a model"),
        pytest.param({"colour": "red"}, id="unknown field"),
    ],
)
def test_a_generation_out_of_bounds_is_refused(change):
    with pytest.raises(ValidationError):
        GenerationSpec.model_validate({"prompt": "a cat"} | change)


PISTOL = {"name": "pistol", "synonyms": ["gun"], "replacement": "flower"}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        pytest.param({}, "give `preset`", id="nothing to erase"),
        pytest.param({"remove": ["axe"]}, "merge", id="nothing to remove it from"),
        pytest.param({"merge": ["a", "a"]}, "listed once", id="a model twice"),
        pytest.param(
            {"preset": "weapons", "textual": {"protect": ["saw", {"name": "Saw"}]}},
            "protected twice",
            id="a neighbour twice",
        ),
        pytest.param(
            {"preset": "weapons", "textual": {"strength": 0}}, "greater than 0", id="no strength"
        ),
        pytest.param({"preset": "weapons", "concepts": [PISTOL]}, "not both", id="both"),
        pytest.param({"concepts": [PISTOL, PISTOL]}, "listed once", id="a concept twice"),
        pytest.param(
            {"concepts": [PISTOL | {"synonyms": ["gun", "Gun"]}]}, "listed twice", id="duplicate"
        ),
        pytest.param(
            {"concepts": [PISTOL | {"replacement": "Pistol"}]}, "to stay", id="target is source"
        ),
        pytest.param(
            {"concepts": [PISTOL], "textual": {"protect": ["gun"]}},
            "protected",
            id="contradiction",
        ),
    ],
)
def test_an_erasure_that_contradicts_itself_is_refused(fields, said):
    with pytest.raises(ValidationError, match=said):
        ErasureSpec.model_validate({"base_model": "emoji"} | fields)


def test_a_concepts_words_begin_with_its_name():
    concept = Concept(name="axe", synonyms=("hatchet",), replacement="flower")

    assert concept.words == ("axe", "hatchet")
