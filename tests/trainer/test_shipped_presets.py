"""What ships in core/presets must be erasable as it stands."""

from pathlib import Path

import pytest

from core import presets
from core.merging import concepts_to_erase
from core.phrases import without_article
from core.specs import ErasureSpec
from diffusion.model_concepts import ModelConcepts
from trainer.concepts import prompt_pairs


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
