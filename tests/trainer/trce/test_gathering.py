import pytest
import torch

from trainer.concepts import PromptPair
from trainer.trce.gathering import gather_statistics
from trainer.trce.statistics import Statistics
from trainer.trce.tokens import moved_tokens

PAIRS = [PromptPair(f"a photo of an axe {n}", f"a flower {n}", 0.5) for n in range(40)]


def gathered(encoder, pairs):
    counted = []
    statistics = gather_statistics(encoder, pairs, which="all", advance=counted.append)
    return statistics, sum(counted)


def test_batches_make_no_difference(encoder):
    statistics, counted = gathered(encoder, {"axe": PAIRS})
    tokens = moved_tokens(
        encoder.encode_all([pair.unsafe for pair in PAIRS]),
        encoder.encode_all([pair.safe for pair in PAIRS]),
        torch.full((40,), 0.5, dtype=torch.float64),
        which="all",
    )
    torch.testing.assert_close(statistics["axe"].moment, Statistics.of(tokens).moment)
    torch.testing.assert_close(statistics["axe"].displacement, Statistics.of(tokens).displacement)
    assert statistics["axe"].weight == pytest.approx(20)
    assert counted == 40


def test_every_concept_has_statistics_of_its_own(encoder):
    both, _ = gathered(encoder, {"axe": PAIRS[:3], "adze": PAIRS[3:5], "hatchet": []})
    alone, _ = gathered(encoder, {"adze": PAIRS[3:5]})
    assert list(both) == ["axe", "adze"]
    assert torch.equal(both["adze"].moment, alone["adze"].moment)
