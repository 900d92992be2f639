import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.errors import UntrustedModel
from trainer.preservation import Kept, KeptGroup
from trainer.trce.archive import FORMAT, load_statistics, save_statistics
from trainer.trce.statistics import Statistics
from trainer.trce.tokens import TokenPairs

D = 8


def statistics(seed):
    draw = torch.Generator().manual_seed(seed)
    unsafe, safe = (torch.randn(3, D, generator=draw, dtype=torch.float64) for _ in range(2))
    return Statistics.of(TokenPairs(unsafe, safe, torch.ones(3, dtype=torch.float64)))


KEPT = Kept(
    "encoder",
    (
        KeptGroup("everyday", 1.0, "a", 9, torch.eye(D).double(), {"an axe": torch.ones(5, D)}),
        KeptGroup("neighbour: saw", 2.0, "b", 3, 2 * torch.eye(D).double(), {}),
    ),
)


def test_what_is_saved_is_what_is_loaded_in_order(tmp_path):
    """More than ten concepts, with names that no file format would choose."""
    concepts = {f'thing {i}, "{i}" ☃': statistics(i) for i in range(12)}
    save_statistics(tmp_path / "s.safetensors", concepts, KEPT)
    loaded, kept = load_statistics(tmp_path / "s.safetensors")

    assert list(loaded) == list(concepts)
    for name, one in concepts.items():
        assert torch.equal(loaded[name].displacement, one.displacement)
        assert torch.equal(loaded[name].moment, one.moment)
        assert loaded[name].weight == one.weight
    assert kept.encoder == "encoder"
    for mine, theirs in zip(KEPT.groups, kept.groups, strict=True):
        assert (mine.name, mine.weight, mine.count) == (theirs.name, theirs.weight, theirs.count)
        assert torch.equal(mine.total, theirs.total)
        assert {*mine.withheld} == {*theirs.withheld}
    assert torch.equal(kept.groups[0].withheld["an axe"], torch.ones(5, D))


@pytest.mark.parametrize("content", [b"", b"garbage" * 9])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(UntrustedModel):
        load_statistics(tmp_path / "s")


HALF = {"concepts": ["axe"], "encoder": "e", "pooled": False, "groups": []}


@pytest.mark.parametrize("metadata", [None, {FORMAT: "half of"}, {FORMAT: json.dumps(HALF)}])
def test_a_file_of_other_tensors_is_refused(tmp_path, metadata):
    save_file({"a": torch.zeros(2)}, tmp_path / "s", metadata=metadata)
    with pytest.raises(UntrustedModel):
        load_statistics(tmp_path / "s")


def test_numbers_that_are_not_finite_are_refused_by_name(tmp_path):
    path = tmp_path / "s.safetensors"
    broken = statistics(0)
    broken.moment[2, 2] = float("nan")
    save_statistics(path, {"axe": broken}, KEPT)
    assert "0.moment" in load_file(path)
    with pytest.raises(UntrustedModel, match=r"0\.moment"):
        load_statistics(path)
