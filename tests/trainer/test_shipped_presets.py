"""What ships in core/presets must be erasable as it stands."""

import pytest

from core import presets
from core.specs import ErasureSpec
from trainer.concepts import concepts_to_erase, prompt_pairs


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_has_no_contradictions_and_no_word_twice(name):
    concepts = concepts_to_erase(ErasureSpec(base_model="m", preset=name))
    words = [word for concept in concepts for word in concept.words]
    weight = sum(pair.weight for pairs in prompt_pairs(concepts).values() for pair in pairs)
    assert weight == pytest.approx(len(words))
