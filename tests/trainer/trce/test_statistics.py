import pytest
import torch
from safetensors.torch import save_file

from core.errors import UntrustedModel
from trainer.trce.statistics import Statistics, load_statistics, save_statistics
from trainer.trce.textual import text_map
from trainer.trce.tokens import TokenPairs

D = 8


def pairs(n, *, seed):
    generator = torch.Generator().manual_seed(seed)
    unsafe, safe = (torch.randn(n, D, generator=generator, dtype=torch.float64) for _ in range(2))
    return TokenPairs(unsafe, safe, torch.rand(n, generator=generator, dtype=torch.float64))


def joined(*parts):
    return TokenPairs(
        *(
            torch.cat([getattr(part, name) for part in parts])
            for name in ("unsafe", "safe", "weights")
        )
    )


KEPT = torch.eye(D, dtype=torch.float64)
AXE, GUN, KNIFE = pairs(4, seed=1), pairs(6, seed=2), pairs(3, seed=3)


def solved(statistics):
    return text_map(statistics, KEPT, preserve=0.3, ridge=0.1).text_map


def test_concepts_erased_one_by_one_and_all_at_once_are_the_same_model():
    parts = [Statistics.of(part) for part in (AXE, GUN, KNIFE)]
    together = Statistics.of(joined(AXE, GUN, KNIFE))
    torch.testing.assert_close(
        solved(Statistics.total(parts)), solved(together), atol=1e-13, rtol=0
    )


def test_a_concept_is_taken_out_as_if_it_had_never_been_in(tmp_path):
    concepts = {
        "axe": Statistics.of(AXE),
        "gun": Statistics.of(GUN),
        "knife": Statistics.of(KNIFE),
    }
    save_statistics(tmp_path / "statistics.safetensors", concepts, KEPT)

    loaded, kept = load_statistics(tmp_path / "statistics.safetensors")
    del loaded["gun"]
    without = solved(Statistics.total(loaded.values()))
    never = solved(Statistics.of(joined(AXE, KNIFE)))
    torch.testing.assert_close(without, never, atol=1e-13, rtol=0)
    assert torch.equal(kept, KEPT)


def test_what_is_saved_is_what_is_loaded_in_order(tmp_path):
    """More than ten concepts, with names that no file format would choose."""
    concepts = {f'thing {i}, "{i}" ☃': Statistics.of(pairs(2, seed=i)) for i in range(12)}
    save_statistics(tmp_path / "s.safetensors", concepts, KEPT)
    loaded, _ = load_statistics(tmp_path / "s.safetensors")

    assert list(loaded) == list(concepts)
    for name, statistics in concepts.items():
        assert torch.equal(loaded[name].displacement, statistics.displacement)
        assert torch.equal(loaded[name].moment, statistics.moment)
        assert loaded[name].weight == statistics.weight


def test_a_weight_of_two_is_the_pair_listed_twice():
    pair = pairs(1, seed=5)
    double = TokenPairs(pair.unsafe, pair.safe, pair.weights * 2)
    one, other = Statistics.of(double), Statistics.of(joined(pair, pair))
    torch.testing.assert_close(one.displacement, other.displacement)
    torch.testing.assert_close(one.moment, other.moment)
    assert one.weight == pytest.approx(other.weight)


@pytest.mark.parametrize("content", [b"", b"garbage" * 9])
def test_a_file_that_is_no_safetensors_is_refused(tmp_path, content):
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(UntrustedModel):
        load_statistics(tmp_path / "s")


@pytest.mark.parametrize(
    "metadata",
    [None, {"trce-statistics-1": "half of"}, {"trce-statistics-1": '["axe"]'}],
)
def test_a_file_of_other_tensors_is_refused(tmp_path, metadata):
    save_file({"a": torch.zeros(2)}, tmp_path / "s", metadata=metadata)
    with pytest.raises(UntrustedModel):
        load_statistics(tmp_path / "s")
