import pytest

from trainer.captions import captions_of, general_captions
from trainer.concepts import mentions


def test_the_same_seed_gives_the_same_captions_and_another_seed_others():
    first, again = (general_captions(50, seed=1, without=[]) for _ in range(2))
    assert first == again
    assert first != general_captions(50, seed=2, without=[])


def test_captions_are_varied():
    captions = general_captions(1000, seed=0, without=[])
    assert len(captions) == 1000
    assert len(set(captions)) > 800


@pytest.mark.parametrize("word", ["dog", "a hammer", "kitchen"])
def test_what_is_to_be_erased_is_not_preserved(word):
    assert any(mentions(caption, [word]) for caption in general_captions(3000, seed=0, without=[]))
    kept = general_captions(3000, seed=0, without=[word])
    assert not any(mentions(caption, [word]) for caption in kept)


def test_every_phrase_gets_as_many_captions_as_asked_for_with_its_article():
    captions = captions_of(["axe", "grapes"], each=15, seed=0)
    assert len(captions) == 30
    assert "a photo of an axe" in captions
    assert "a photo of grapes" in captions


def test_too_many_captions_are_a_choice_from_all_of_them():
    phrases = [f"thing {number}" for number in range(100)]
    every = captions_of(phrases, each=4, seed=0)
    some = captions_of(phrases, each=4, seed=0, at_most=60)
    assert len(some) == 60
    assert set(some) < set(every)
    assert len({caption for caption in some if "thing 9" in caption}) > 1
    assert sorted(captions_of(phrases, each=4, seed=0, at_most=1000)) == sorted(every)
