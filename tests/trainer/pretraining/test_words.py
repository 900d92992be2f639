"""What is withheld from captions stays withheld, and every name gets its article."""

import pytest

from trainer.pretraining import concepts, vocabulary
from trainer.pretraining.captions import Articles, Captioner


@pytest.fixture(scope="module")
def words() -> dict[str, vocabulary.Vocabulary]:
    return vocabulary.load(concepts.load())


@pytest.fixture(scope="module")
def articles() -> Articles:
    return Articles.load()


def test_every_concept_has_words_of_every_kind(words):
    for name, mine in words.items():
        for kind in ("called", "held", "train", "tuning", "test"):
            assert getattr(mine, kind), f"{name} has no {kind}"


def test_descriptions_of_training_tuning_and_test_are_disjoint(words):
    seen: dict[str, str] = {}
    for name, mine in words.items():
        for text in [*mine.train, *mine.tuning, *mine.test]:
            where = f"{name}: {text}"
            assert seen.setdefault(text, where) == where
        everything = [*mine.train, *mine.tuning, *mine.test]
        assert len(set(everything)) == len(everything), name


def test_no_caption_contains_a_withheld_synonym_or_description(words, articles):
    captioner = Captioner(words, articles, seed=0)
    for name, mine in words.items():
        texts = [captioner.caption(name, "noto").text for _ in range(40)]
        for withheld in [*mine.held, *mine.tuning, *mine.test]:
            for text in texts:
                assert not vocabulary.contains(text, withheld), (name, withheld, text)


def test_captions_name_a_style_only_when_the_picture_has_one(words, articles):
    captioner = Captioner(words, articles, seed=0)
    captions = [captioner.caption("axe", None, style_share=1.0) for _ in range(50)]
    assert not any(caption.styled for caption in captions)
    assert captioner.caption("axe", "twemoji", style_share=1.0).text.count("twemoji") == 1


def test_the_same_seed_writes_the_same_captions(words, articles):
    one, other = (Captioner(words, articles, seed=7) for _ in range(2))
    assert [one.caption("dog", "ink") for _ in range(20)] == [
        other.caption("dog", "ink") for _ in range(20)
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("axe", "an axe"),
        ("pistol", "a pistol"),
        ("unicorn", "a unicorn"),
        ("hourglass", "an hourglass"),
        ("brass knuckles", "brass knuckles"),
        ("beer", "beer"),
        ("moon", "the moon"),
        ("half an avocado", "half an avocado"),
    ],
)
def test_names_stand_behind_their_article(articles, name, expected):
    assert articles.named(name) == expected
