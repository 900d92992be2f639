"""TRCE stage 2, the loss: steer away from the concept, and stay put everywhere else.

    L = 1/2 [ hinge(e(x_t, c_unsafe)) + hinge(e(x_t, "")) ] + lambda mean (e - e1)^2(u_t, c)

    hinge(e) = max( mean (e - f_safe)^2 - mean (e - f_unsafe)^2 + margin, 0 )

    e     the UNet that is trained            x_t   an early point on the way to the concept
    e1    the same after stage 1, frozen      u_t   a point of a trajectory that leads elsewhere

c is the empty prompt and, which is ours, a caption that is to keep its meaning.

The difference of squares is linear in e: its gradient points from f_unsafe to f_safe wherever e
stands, until e is nearer to f_safe by the margin; from there on it is zero. A prompt that stage
1 has dealt with gives no gradient; one that it missed does.

Source: arXiv:2503.07389, section 3.2 (stage 2).
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SteeringLoss:
    prompted: Tensor
    """() The hinge with the unsafe prompt, averaged over the batch."""
    unprompted: Tensor
    """() The hinge without a prompt."""
    anchored: Tensor
    """() The mean squared change of predictions elsewhere, before its weight."""

    def __add__(self, other: "SteeringLoss") -> "SteeringLoss":
        return SteeringLoss(
            self.prompted + other.prompted,
            self.unprompted + other.unprompted,
            self.anchored + other.anchored,
        )

    def detach(self) -> "SteeringLoss":
        return SteeringLoss(
            self.prompted.detach(), self.unprompted.detach(), self.anchored.detach()
        )

    @property
    def figures(self) -> dict[str, float]:
        return {
            "prompted": self.prompted.item(),
            "unprompted": self.unprompted.item(),
            "anchored": self.anchored.item(),
        }

    def total(self, *, regularisation: float) -> Tensor:
        """`regularisation` is lambda."""
        return (self.prompted + self.unprompted) / 2 + regularisation * self.anchored


def hinge(prediction: Tensor, safe: Tensor, unsafe: Tensor, *, margin: float | Tensor) -> Tensor:
    """How far each prediction is from being nearer to `safe` by `margin`: (n,).

    All are (n, 4, h, w); gradients flow through `prediction` alone. `margin` counts in mean
    squares per element; it may be another one for each row, (n,).
    """
    to_safe = (prediction - safe.detach()).square().flatten(1).mean(dim=1)
    to_unsafe = (prediction - unsafe.detach()).square().flatten(1).mean(dim=1)
    return (to_safe - to_unsafe + margin).clamp(min=0)
