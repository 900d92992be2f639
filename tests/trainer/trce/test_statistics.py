import pytest
import torch

from trainer.trce.statistics import Statistics
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


def test_a_weight_of_two_is_the_pair_listed_twice():
    pair = pairs(1, seed=5)
    double = TokenPairs(pair.unsafe, pair.safe, pair.weights * 2)
    one, other = Statistics.of(double), Statistics.of(joined(pair, pair))
    torch.testing.assert_close(one.displacement, other.displacement)
    torch.testing.assert_close(one.moment, other.moment)
    assert one.weight == pytest.approx(other.weight)
