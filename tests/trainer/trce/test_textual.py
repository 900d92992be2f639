"""Stage 1, theorem by theorem."""

import pytest
import torch

from core.errors import SingularEdit
from trainer.trce.statistics import Statistics
from trainer.trce.textual import text_map
from trainer.trce.tokens import TokenPairs

D = 12


def rows(n, *, seed, d=D):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def second_moment(captions):
    return captions.T @ captions / len(captions)


def statistics_of(unsafe, safe, weights=None):
    weights = torch.ones(len(unsafe), dtype=torch.float64) if weights is None else weights
    return Statistics.of(TokenPairs(unsafe=unsafe, safe=safe, weights=weights))


@pytest.fixture
def unsafe():
    return rows(5, seed=1)


@pytest.fixture
def safe():
    return rows(5, seed=2)


@pytest.fixture
def captions():
    return rows(200, seed=3)


@pytest.fixture
def kept(captions):
    return second_moment(captions)


@pytest.mark.parametrize("weights", [(0.1, 0.0), (0.1, 0.3), (5.0, 1e-3)], ids=str)
def test_no_other_map_does_better(unsafe, safe, captions, weights):
    """The gradient of the stated objective vanishes at T: each weight acts once.

    (The reference multiplies the preserved part by its weight twice.)
    """
    preserve, ridge = weights
    kept = second_moment(captions)
    edit = text_map(statistics_of(unsafe, safe), kept, preserve=preserve, ridge=ridge)
    T = edit.text_map.requires_grad_()
    identity = torch.eye(D, dtype=torch.float64)

    moved = (unsafe @ T.T - safe).square().sum(dim=1).mean()
    left = (captions @ T.T - captions).square().sum(dim=1).mean()
    old = (T - identity).square().sum() * kept.trace() / D
    (moved + preserve * left + ridge * old).backward()

    assert T.grad.norm() < 1e-10


def test_it_is_the_closed_form_of_every_layer(unsafe, safe, kept):
    """W' from the paper's own formula, layer by layer, is W T."""
    preserve = 0.2
    T = text_map(statistics_of(unsafe, safe), kept, preserve=preserve, ridge=0).text_map
    for layer in range(3):
        W = rows(7, seed=10 + layer)
        numerator = W @ (safe.T @ unsafe / len(unsafe)) + preserve * W @ kept
        denominator = unsafe.T @ unsafe / len(unsafe) + preserve * kept
        torch.testing.assert_close(W @ T, numerator @ torch.linalg.inv(denominator))


def test_nothing_to_move_is_no_edit(unsafe, kept):
    edit = text_map(statistics_of(unsafe, unsafe), kept, preserve=0.1, ridge=0.1)
    assert torch.equal(edit.text_map, torch.eye(D, dtype=torch.float64))
    assert edit.relative_change == 0


def test_unsafe_text_lands_on_safe_text_when_little_is_preserved(unsafe, safe, kept):
    T = text_map(statistics_of(unsafe, safe), kept, preserve=1e-7, ridge=0).text_map
    torch.testing.assert_close(unsafe @ T.T, safe, atol=1e-4, rtol=0)


def test_strong_preservation_leaves_everything_alone(unsafe, safe, kept):
    edit = text_map(statistics_of(unsafe, safe), kept, preserve=1e7, ridge=0)
    assert edit.relative_change < 1e-5


def test_a_strong_ridge_leaves_everything_alone(unsafe, safe, kept):
    edit = text_map(statistics_of(unsafe, safe), kept, preserve=0.1, ridge=1e7)
    assert edit.relative_change < 1e-5


def test_without_a_ridge_text_orthogonal_to_what_is_moved_stays(safe):
    """With K spanning all but isotropically, a direction that is never moved never moves."""
    unsafe = torch.zeros(5, D, dtype=torch.float64)
    unsafe[:, :3] = rows(5, seed=1, d=3)
    T = text_map(
        statistics_of(unsafe, safe), torch.eye(D, dtype=torch.float64), preserve=0.1, ridge=0
    ).text_map
    untouched = torch.eye(D, dtype=torch.float64)[5]
    torch.testing.assert_close(T @ untouched, untouched)


@pytest.mark.parametrize("scale", [1e-3, 30.0])
def test_embeddings_of_another_scale_give_the_same_map(unsafe, safe, kept, scale):
    """So preserve and ridge mean the same for every model."""
    here = text_map(statistics_of(unsafe, safe), kept, preserve=0.2, ridge=0.1)
    there = text_map(
        statistics_of(scale * unsafe, scale * safe), scale**2 * kept, preserve=0.2, ridge=0.1
    )
    torch.testing.assert_close(here.text_map, there.text_map)


def test_saying_everything_twice_changes_nothing(unsafe, safe, kept):
    once = text_map(statistics_of(unsafe, safe), kept, preserve=0.2, ridge=0.1)
    twice = text_map(
        statistics_of(unsafe.repeat(2, 1), safe.repeat(2, 1)), kept, preserve=0.2, ridge=0.1
    )
    torch.testing.assert_close(once.text_map, twice.text_map)


def test_the_edit_has_the_rank_of_what_it_moves(unsafe, safe, kept):
    T = text_map(statistics_of(unsafe, safe), kept, preserve=0.2, ridge=0.1).text_map
    change = T - torch.eye(D, dtype=torch.float64)
    assert torch.linalg.matrix_rank(change, rtol=1e-10) == len(unsafe)


def test_badly_conditioned_text_is_solved_to_many_digits(unsafe, safe):
    """Text states have nearly low rank; a float32 inverse, as in the reference, is noise."""
    rotation = torch.linalg.qr(rows(D, seed=4)).Q
    S = rotation @ torch.logspace(0, -5, D, dtype=torch.float64).diag()
    kept = second_moment(rows(200, seed=3))
    easy = text_map(statistics_of(unsafe, safe), kept, preserve=0.1, ridge=0).text_map
    # Text stretched by S is moved by the map S T S^-1: that much is algebra.
    expected = S @ easy @ S.inverse()

    unsafe, safe, kept = unsafe @ S.T, safe @ S.T, S @ kept @ S.T
    edit = text_map(statistics_of(unsafe, safe), kept, preserve=0.1, ridge=0)
    A = safe.T @ unsafe / 5 + 0.1 * kept
    B = unsafe.T @ unsafe / 5 + 0.1 * kept
    single = (A.float() @ torch.linalg.inv(B.float())).double()

    assert edit.condition > 1e9
    assert (edit.text_map - expected).norm() / expected.norm() < 1e-6
    assert (single - expected).norm() / expected.norm() > 0.1


def test_the_condition_number_is_that_of_the_system(unsafe, safe, kept):
    edit = text_map(statistics_of(unsafe, safe), kept, preserve=0.2, ridge=0)
    B = unsafe.T @ unsafe / len(unsafe) + 0.2 * kept
    assert edit.condition == pytest.approx(float(torch.linalg.cond(B)))


def test_too_little_to_preserve_is_refused_and_a_ridge_helps(unsafe, safe):
    thin = second_moment(rows(3, seed=4))
    with pytest.raises(SingularEdit, match="raise `ridge`"):
        text_map(statistics_of(unsafe, safe), thin, preserve=0.1, ridge=0)
    assert text_map(statistics_of(unsafe, safe), thin, preserve=0.1, ridge=0.01).condition < 1e6


@pytest.mark.parametrize("broken", ["unsafe", "kept"])
def test_numbers_that_are_none_are_refused(unsafe, safe, kept, broken):
    {"unsafe": unsafe, "kept": kept}[broken][0, 0] = torch.nan
    with pytest.raises(SingularEdit, match="not finite"):
        text_map(statistics_of(unsafe, safe), kept, preserve=0.1, ridge=0.1)
