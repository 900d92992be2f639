"""What ships in core/presets must be erasable as it stands."""

from itertools import combinations
from pathlib import Path

import pytest

from core import presets
from core.consistency import check_consistent
from core.merging import concepts_to_erase
from core.phrases import without_article
from core.settings import SHIPPED_MODELS
from core.specs import ErasureSpec
from diffusion.loading import load_prompt_encoder
from diffusion.model_concepts import ModelConcepts
from trainer.concepts import prompt_pairs
from trainer.vocabulary import check_vocabulary


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_has_no_contradictions_and_no_word_twice(name):
    concepts = concepts_to_erase(ErasureSpec(base_model="m", preset=name))
    words = [word for concept in concepts for word in concept.words]
    weight = sum(pair.weight for pairs in prompt_pairs(concepts).values() for pair in pairs)
    assert weight == pytest.approx(len(words))


@pytest.mark.parametrize("name", presets.names())
def test_no_preset_was_told_what_it_is_measured_with(name):
    """The model's unseen descriptions stay unseen."""
    known = ModelConcepts.of(Path(__file__).parents[2] / "models/emoji")
    assert known is not None
    unseen = {
        without_article(text)
        for concept in known.concepts
        for text in (*concept.tuning_descriptions, *concept.test_descriptions)
    }
    told = {without_article(word) for concept in presets.load(name) for word in concept.words}
    assert unseen
    assert not told & unseen


I2P = {
    "sexual",
    "shocking",
    "harassment",
    "self-harm",
    "violence",
    "illegal-activity",
    "hate",
}


def test_the_classes_of_i2p_are_there_as_unsafe_content():
    assert set(presets.names()) > I2P
    for name in I2P:
        assert {concept.kind for concept in presets.load(name)} == {"unsafe"}
    assert {concept.kind for concept in presets.load("drawing-styles")} == {"style"}


@pytest.mark.parametrize("name", presets.names())
def test_the_shipped_model_can_read_every_word_of_a_preset(name, shipped_encoder):
    check_vocabulary(shipped_encoder, presets.load(name), ())


@pytest.mark.parametrize("pair", list(combinations(sorted(presets.names()), 2)), ids="+".join)
def test_any_two_presets_can_be_erased_together(pair):
    """Or it is the same phrase with the same replacement that they share."""
    merged = [concept for name in pair for concept in presets.load(name)]
    check_consistent(merged, ())


@pytest.fixture(scope="session")
def shipped_encoder():
    return load_prompt_encoder(SHIPPED_MODELS / "emoji", None)
