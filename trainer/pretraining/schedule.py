"""The learning rate of every stage: a short rise, a plateau, a straight descent."""

import torch


def rate(step: int, total: int, *, peak: float, rise: int = 100, descent: float = 0.5) -> float:
    """The learning rate at `step` of `total`; the last `descent` of the run falls to 2 %."""
    left = (total - step) / (total * descent) if descent else 1.0
    return peak * min(1.0, (step + 1) / rise) * max(0.02, min(1.0, left))


def set_rate(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value
