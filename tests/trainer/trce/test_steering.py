import torch

from trainer.trce.steering import SteeringLoss, hinge


def predictions(seed: int) -> torch.Tensor:
    return torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(seed))


SAFE, UNSAFE = predictions(1), predictions(2)


def test_a_prediction_on_the_safe_side_costs_nothing():
    assert hinge(SAFE, SAFE, UNSAFE, margin=0.01).eq(0).all()


def test_a_prediction_on_the_unsafe_side_costs_its_distance_and_the_margin():
    distance = (SAFE - UNSAFE).square().flatten(1).mean(dim=1)

    torch.testing.assert_close(hinge(UNSAFE, SAFE, UNSAFE, margin=0.5), distance + 0.5)


def test_between_the_two_only_the_margin_is_left():
    halfway = (SAFE + UNSAFE) / 2

    torch.testing.assert_close(
        hinge(halfway, SAFE, UNSAFE, margin=0.01), torch.full((3,), 0.01), rtol=0, atol=1e-6
    )


def test_the_gradient_points_from_unsafe_to_safe():
    prediction = UNSAFE.clone().requires_grad_()
    hinge(prediction, SAFE, UNSAFE, margin=0.01).sum().backward()

    step = -prediction.grad.flatten(1)
    towards = (SAFE - UNSAFE).flatten(1)
    assert torch.cosine_similarity(step, towards).min() > 1 - 1e-5


def test_no_gradient_reaches_the_targets():
    safe, unsafe = SAFE.clone().requires_grad_(), UNSAFE.clone().requires_grad_()
    prediction = predictions(3).requires_grad_()
    hinge(prediction, safe, unsafe, margin=10).sum().backward()

    assert safe.grad is None
    assert unsafe.grad is None


def test_the_regularisation_counts_once():
    loss = SteeringLoss(torch.tensor(2.0), torch.tensor(4.0), torch.tensor(0.5))

    assert loss.total(regularisation=100) == 3 + 50
