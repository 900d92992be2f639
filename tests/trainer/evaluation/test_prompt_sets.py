from diffusion.model_concepts import KnownConcept, ModelConcepts
from trainer.concepts import templates
from trainer.evaluation.prompt_sets import SENTENCE, erased_sets, other_set

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


def test_fewer_others_are_spread_over_all_of_them():
    fewer = [question.answer for question in other_set(KNOWN, "weapon", at_most=4).questions]
    assert fewer == ["glasses", "dog 2", "dog 5", "dog 8"]
