"""What it means for two drawings of the same request to be the same: within float rounding."""

from torch import Tensor

MOST = 1e-4
"""Of the largest number in the latents. What one pass rounds, a scheduler carries on and makes
larger; on a UNet that never learned anything some reach hundreds, where float32 is no finer."""


def assert_same_latents(found: Tensor, expected: Tensor, name: object = "") -> None:
    assert found.shape == expected.shape, name
    assert expected.isfinite().all(), name
    apart, largest = float((found - expected).abs().max()), float(expected.abs().max())
    assert apart <= MOST * largest, f"{name}: {apart:.2g} apart, in latents of up to {largest:.3g}"
