from trainer.captions import captions_of, general_captions


def test_the_same_seed_gives_the_same_captions_and_another_seed_others():
    first, again = (general_captions(50, seed=1) for _ in range(2))
    assert first == again
    assert first != general_captions(50, seed=2)


def test_captions_are_varied():
    captions = general_captions(1000, seed=0)
    assert len(captions) == 1000
    assert len(set(captions)) > 800


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
