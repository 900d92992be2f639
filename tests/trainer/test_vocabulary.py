import pytest

from core.errors import ConceptInvalid
from core.specs import Concept, ErasureSpec, Neighbour
from trainer.erase import erase
from trainer.vocabulary import check_vocabulary


def concept(name, replacement="flower", **fields):
    return Concept(name=name, replacement=replacement, **fields)


@pytest.mark.parametrize(
    ("concepts", "protect", "why"),
    [
        pytest.param([concept("☃")], (), "'☃' has characters .* missing", id="no tokens"),
        pytest.param([concept("axe", synonyms=["Zażółć"])], (), "Zażółć", id="a synonym"),
        pytest.param([concept("axe", "漢字")], (), "漢字", id="a replacement"),
        pytest.param([concept("axe")], ["ünder"], "ünder", id="a neighbour"),
        pytest.param([concept("x" * 60)], (), "60 tokens long", id="cut off in a sentence"),
        pytest.param([concept("Axe  axe", "axe axe")], (), "same tokens", id="read as the same"),
    ],
)
def test_what_the_model_cannot_read_is_refused_by_name(encoder, concepts, protect, why):
    neighbours = [Neighbour(name=name) for name in protect]
    with pytest.raises(ConceptInvalid, match=why):
        check_vocabulary(encoder, concepts, neighbours)


def test_whatever_can_be_spelled_is_known(encoder):
    check_vocabulary(encoder, [concept("zweihänder".replace("ä", "ae"))], [Neighbour(name="saw")])


def test_an_erasure_of_unreadable_words_leaves_nothing(tiny_folder, tmp_path):
    spec = ErasureSpec(base_model="tiny", concepts=(concept("☃"),))
    with pytest.raises(ConceptInvalid):
        erase(tiny_folder, None, spec, tmp_path / "out", lambda _: None, model_id="out")
    assert list(tmp_path.iterdir()) == []
