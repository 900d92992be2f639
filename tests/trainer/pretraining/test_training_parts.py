"""The small parts that the training stages share."""

import pytest
import torch
from torch import nn

from trainer.pretraining import augmentation
from trainer.pretraining.autoencoder import edge_loss, psnr
from trainer.pretraining.averaging import Average
from trainer.pretraining.rounds import batches
from trainer.pretraining.schedule import rate


def test_every_row_comes_once_per_round():
    rounds = batches(torch.arange(10), 4, torch.Generator().manual_seed(0))
    seen = torch.cat([next(rounds) for _ in range(5)])
    assert sorted(seen[:8].tolist() + seen[8:].tolist()) == sorted([*range(10)] * 2)


def test_the_rate_rises_stays_and_falls():
    values = [rate(step, 1000, peak=1.0, rise=100, descent=0.5) for step in range(1000)]
    assert values[0] == pytest.approx(0.01)
    assert values[300] == 1.0
    assert values[750] == pytest.approx(0.5)
    assert values[-1] == pytest.approx(0.02)


def test_a_rate_without_descent_stays():
    assert rate(999, 1000, peak=1.0, descent=0) == 1.0


def test_the_average_is_lent_and_given_back():
    model = nn.Linear(2, 2, bias=False)
    average = Average(model, decay=0.9)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1)
    average.update()
    with average.applied():
        lent = model.weight.detach().clone()
    assert torch.allclose(model.weight, before + 1)
    assert torch.all((lent > before) & (lent <= before + 1))


def test_edges_of_equal_pictures_do_not_differ():
    picture = torch.rand(1, 3, 8, 8)
    assert edge_loss(picture, picture) == 0
    assert edge_loss(picture + 0.5, picture) == pytest.approx(0, abs=1e-6)


def test_psnr_of_the_largest_error_is_zero():
    assert psnr(4.0) == 0


@pytest.mark.parametrize("change", [augmentation.moved, augmentation.worn, augmentation.hidden])
def test_augmentation_keeps_shape_and_range(change):
    pictures = torch.rand(6, 3, 64, 64) * 2 - 1
    changed = change(pictures, torch.Generator().manual_seed(0))
    assert changed.shape == pictures.shape
    assert changed.min() >= -1 - 1e-5
    assert changed.max() <= 1 + 1e-5
    assert torch.equal(changed, change(pictures, torch.Generator().manual_seed(0)))
