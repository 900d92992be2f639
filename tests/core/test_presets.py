import pytest

from core import presets
from core.errors import ConceptInvalid
from core.specs import ErasureSpec


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_makes_a_valid_erasure(name):
    concepts = presets.load(name)
    assert concepts
    assert ErasureSpec(base_model="emoji", concepts=concepts).concepts == tuple(concepts)


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(ConceptInvalid, match="weapons"):
        presets.load("kittens")
