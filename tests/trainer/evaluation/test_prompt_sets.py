from itertools import pairwise

import pytest

from diffusion.model_concepts import KnownConcept, ModelConcepts
from trainer.concepts import templates
from trainer.evaluation.prompt_sets import SENTENCE, PromptSet, erased_sets, other_set

KNOWN = ModelConcepts(
    concepts=(
        KnownConcept(
            name="axe",
            group="weapon",
            article="an",
            synonyms=("hatchet",),
            held_out_synonyms=("tomahawk",),
            descriptions=("what chops wood",),
            tuning_descriptions=("a lumberjack's tool",),
            test_descriptions=("it fells a tree",),
        ),
        KnownConcept(name="glasses", group="clothing"),
        *(KnownConcept(name=f"dog {n}", group="animal", article="a") for n in range(9)),
    )
)


def prompts(split="tuning", told=("an axe", "Tomahawk")):
    sets = erased_sets(KNOWN, "weapon", split, told=told)
    return {s.name: [question.prompt for question in s.questions] for s in sets}


def test_synonyms_are_sorted_by_whether_the_erasure_was_told():
    asked = prompts()
    assert asked["names"] == ["a picture of an axe"]
    assert asked["synonyms told"] == ["a picture of a tomahawk"]
    assert asked["synonyms not told"] == ["a picture of a hatchet"]


def test_settings_are_never_chosen_on_the_descriptions_they_are_reported_with():
    tuning = [prompt for asked in prompts("tuning").values() for prompt in asked]
    test = [prompt for asked in prompts("test").values() for prompt in asked]
    assert "a lumberjack's tool" in tuning
    assert "it fells a tree" not in tuning
    assert "it fells a tree" in test
    assert "a lumberjack's tool" not in test


def test_models_are_asked_in_a_sentence_that_no_erasure_has_used():
    assert SENTENCE.format("{a}") not in templates("object")


def test_others_are_everything_else_with_their_own_articles():
    others = other_set(KNOWN, "weapon")
    assert len(others.questions) == 10
    assert others.questions[0].prompt == "a picture of glasses"
    assert others.questions[1].prompt == "a picture of a dog 0"
    assert others.questions[1].answer == "dog 0"


@pytest.mark.parametrize("at_most", [1, 3, 4, 9, 10, 11])
def test_fewer_questions_are_spread_over_all_of_them(at_most):
    others = other_set(KNOWN, "weapon")
    fewer = others.thinned(at_most).questions
    assert 0 < len(fewer) <= at_most
    places = [others.questions.index(question) for question in fewer]
    assert len({after - before for before, after in pairwise(places)}) <= 1


def test_no_limit_and_no_questions_are_left_as_they_are():
    assert other_set(KNOWN, "weapon").thinned(None) == other_set(KNOWN, "weapon")
    assert PromptSet("none", ()).thinned(3).questions == ()
