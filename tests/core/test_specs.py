import json

import pytest
from pydantic import ValidationError

from core.specs import (
    STEERING_PRESETS,
    Concept,
    ErasureSpec,
    GenerationSpec,
    SteeringOptions,
)


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
        pytest.param({"preset": []}, "at least 1 item", id="no preset of a list"),
        pytest.param({"preset": ["weapons", "weapons"]}, "listed once", id="a preset twice"),
        pytest.param({"preset": ["weapons", "No!"]}, "should match", id="no name of a preset"),
        pytest.param(
            {"preset": "weapons", "textual": {"captions": ["a kiln"] * 20_001}},
            "at most 20000",
            id="too many captions",
        ),
        pytest.param(
            {"preset": "weapons", "textual": {"captions": ["a" * 300] * 10_000}},
            "may have 2500000",
            id="captions too long together",
        ),
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


@pytest.mark.parametrize("preset", [None, "weapons", ("weapons", "drugs")])
def test_presets_stand_beside_concepts_and_are_written_as_they_were_given(preset):
    fields = {"base_model": "m", "preset": preset, "concepts": [PISTOL]}
    spec = ErasureSpec.model_validate(fields)

    assert spec.preset == preset
    assert spec.asked_for == (*spec.presets, "pistol")
    assert ErasureSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_concepts_words_begin_with_its_name():
    concept = Concept(name="axe", synonyms=("hatchet",), replacement="flower")

    assert concept.words == ("axe", "hatchet")


class TestSteering:
    def spec(self, steering):
        return ErasureSpec.model_validate(
            {"base_model": "m", "preset": "weapons", "steering": steering}
        )

    def test_published_settings_have_a_name(self):
        published = self.spec("published-sd1").steering

        assert (published.learning_rate, published.target_scale) == (1e-6, 16)
        assert published == SteeringOptions.model_validate(STEERING_PRESETS["published-sd1"])

    def test_without_it_there_is_stage_one_alone(self):
        assert self.spec(None).steering is None

    @pytest.mark.parametrize(
        ("steering", "complaint"),
        [
            pytest.param("published-sd9", "there are: published-sd1", id="no such settings"),
            pytest.param({"learning_rate": 0}, "greater than 0", id="nothing to learn"),
            pytest.param({"learning_rate": float("nan")}, "learning_rate", id="not a number"),
            pytest.param({"steps": 10**9}, "less than or equal", id="without end"),
            pytest.param({"batch": 2, "accumulation": 3}, "has no 3 parts", id="empty parts"),
            pytest.param({"rate": 1}, "Extra inputs", id="no such option"),
        ],
    )
    def test_what_cannot_be_is_refused(self, steering, complaint):
        with pytest.raises(ValidationError, match=complaint):
            self.spec(steering)

    def test_a_spec_survives_being_written_and_read(self):
        spec = self.spec("published-sd1")

        assert ErasureSpec.model_validate_json(spec.model_dump_json()) == spec

    def test_the_schema_offers_the_name(self):
        assert "published-sd1" in json.dumps(ErasureSpec.model_json_schema())
