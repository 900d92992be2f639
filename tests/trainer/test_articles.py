import pytest

from core.phrases import without_article
from trainer.articles import with_article


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("axe", "an axe"),
        ("pistol", "a pistol"),
        ("bow and arrow", "a bow and arrow"),
        ("hourglass", "an hourglass"),
        ("unicorn", "a unicorn"),
        ("uniform", "a uniform"),
        ("umbrella", "an umbrella"),
        ("unlit fuse", "an unlit fuse"),
        ("used rifle", "a used rifle"),
        ("AK-47", "an AK-47"),
        ("SMG", "an SMG"),
        ("UFO", "a UFO"),
        ("M16", "an M16"),
        ("one-handed sword", "a one-handed sword"),
        ("8-ball", "an 8-ball"),
        ("bus", "a bus"),
        ("glass of wine", "a glass of wine"),
        ("cross", "a cross"),
        ("box of matches", "a box of matches"),
        ("weapon that fires bullets", "a weapon that fires bullets"),
    ],
)
def test_a_thing_gets_the_article_it_is_spoken_with(phrase, expected):
    assert with_article(phrase) == expected


@pytest.mark.parametrize(
    "phrase",
    [
        "firearms",
        "brass knuckles",
        "swords of steel",
        "ammunition",
        "red wine",
        "an axe",
        "the Axe of Truth",
        "some dynamite",
        "two knives",
        "something sharp to stab with",
        "his gun",
    ],
)
def test_plurals_substances_and_what_has_one_get_no_article(phrase):
    assert with_article(phrase) == phrase


def test_with_and_without_an_article_it_is_the_same_thing():
    assert without_article("An Axe") == without_article("axe ") == without_article("the axe")
    assert without_article("another axe") == "another axe"
