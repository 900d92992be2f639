"""`concepts.json` says what the tables say, in a form that others can rely on."""

import json

import pytest

from trainer.pretraining.catalogue import catalogue
from trainer.pretraining.folders import Folders

LISTS = (
    "groups",
    "styles",
    "synonyms",
    "held_out_synonyms",
    "descriptions",
    "tuning_descriptions",
    "test_descriptions",
)


@pytest.fixture(scope="module")
def found():
    return catalogue()


def test_the_shipped_file_is_up_to_date(found):
    assert json.loads((Folders().model / "concepts.json").read_text()) == found


def test_every_concept_has_the_documented_keys(found):
    for concept in found["concepts"]:
        assert set(concept) == {"name", "group", "article", *LISTS}
        assert concept["article"] in {"a", "an", "the", ""}
        assert concept["group"] in concept["groups"]
        for key in LISTS:
            assert all(isinstance(text, str) and text for text in concept[key])


def test_groups_name_known_concepts_and_weapons_are_many(found):
    groups = {group for concept in found["concepts"] for group in concept["groups"]}
    assert groups == set(found["groups"])
    assert sum("weapon" in concept["groups"] for concept in found["concepts"]) >= 25


def test_names_are_unique_and_styles_are_known(found):
    names = [concept["name"] for concept in found["concepts"]]
    styles = {style["name"] for style in found["styles"]}
    assert len(set(names)) == len(names)
    assert all(set(concept["styles"]) <= styles for concept in found["concepts"])
