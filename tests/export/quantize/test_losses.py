"""The paired loss of accuracy: by labels, or by fp32's own probabilities, and how sure it is."""

from __future__ import annotations

import numpy as np
import pytest

from smartbert_export.quantize.losses import estimate_loss, paired_losses


def test_losses_with_labels() -> None:
    """Both right, only fp32, only the quantized, neither."""
    fp32 = np.array([[2, 0], [2, 0], [2, 0], [2, 0]], dtype=np.float32)
    quantized = np.array([[1, 0], [0, 1], [0, 1], [1, 0]], dtype=np.float32)
    assert paired_losses(fp32, quantized, np.array([0, 0, 1, 1])).tolist() == [0.0, 1.0, -1.0, 0.0]


def test_losses_without_labels() -> None:
    """A changed answer costs fp32's probability of its own answer less that of the other."""
    fp32 = np.log(np.array([[0.7, 0.2, 0.1], [0.5, 0.45, 0.05], [0.6, 0.3, 0.1]], dtype=np.float32))
    quantized = np.array([[0, 0, 9], [0, 9, 0], [9, 0, 0]], dtype=np.float32)
    np.testing.assert_allclose(paired_losses(fp32, quantized, None), [0.6, 0.05, 0.0], atol=1e-6)


def test_estimate_by_hand() -> None:
    """12 of 500 answers lost, 4 won (Agresti and Min 2005): center 8 / 502, variance (17 - 64 / 502) / 502^2."""
    found = estimate_loss(np.array([1.0] * 12 + [-1.0] * 4 + [0.0] * 484))
    center, spread = 8 / 502, 1.645 * (17 - 64 / 502) ** 0.5 / 502
    assert found.mean == pytest.approx(8 / 500)
    assert (found.lower, found.upper) == pytest.approx((center - spread, center + spread))


def test_no_difference_is_not_certain() -> None:
    few, many = estimate_loss(np.zeros(50)), estimate_loss(np.zeros(5000))
    assert few.mean == many.mean == 0.0
    assert few.lower < many.lower < 0.0 < many.upper < few.upper


def test_bounds_hold_in_simulation() -> None:
    """The lower bound is above the true loss in at most about 5 % of trials, also where few answers change."""
    rng = np.random.default_rng(0)
    for lost, won, texts in ((0.01, 0.005, 500), (0.002, 0.002, 500), (0.05, 0.01, 200)):
        values = rng.choice([1.0, -1.0, 0.0], p=[lost, won, 1 - lost - won], size=(2000, texts))
        above = np.mean([estimate_loss(row).lower > lost - won for row in values])
        assert above < 0.065
