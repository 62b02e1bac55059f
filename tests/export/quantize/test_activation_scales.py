"""The scale for a recorded range: over all of it, or over the part of it with the least squared error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from smartbert.activations.ranges import Histogram, HistogramBuilder
from smartbert_export.quantize.activation_scales import (
    STRENGTH,
    ActivationScale,
    covering,
    least_error,
    smoothed,
    squared_error,
)


def recorded(values: NDArray[np.float64]) -> Histogram:
    builder = HistogramBuilder()
    builder.add(values.astype(np.float32).reshape(len(values), -1))
    return builder.histogram()


def error_of(values: NDArray[np.float64], scale: ActivationScale) -> float:
    """As QuantizeLinear and DequantizeLinear compute it."""
    levels = np.clip(np.rint(values / scale.scale) + scale.zero_point, 0, 255)
    return float(((levels - scale.zero_point) * scale.scale - values).__pow__(2).mean())


def test_covering_scale() -> None:
    # Zero is a level of every scale: padding and masked values stay exact.
    for low, high, step, zero_point in ((-1.0, 1.55, 0.01, 100), (2.0, 5.1, 0.02, 0), (-5.1, -1.0, 0.02, 255)):
        found = covering(low, high)
        assert found.scale == pytest.approx(step) and found.zero_point == zero_point
    assert covering(0.0, 0.0).scale > 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_expected_error_is_the_real_one(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=40_000) * 3.0
    histogram = recorded(values)
    for scale in (covering(-2.0, 2.0), covering(-6.0, 4.0), covering(values.min(), values.max())):
        assert squared_error(histogram, scale) == pytest.approx(error_of(values, scale), rel=0.03)


@pytest.mark.parametrize(("times", "is_clipped"), [(1, False), (100, True)])
def test_outliers_are_clipped_where_they_are_rare(times: int, is_clipped: bool) -> None:
    """Clipping d in one of n values costs d^2 / n, keeping it about (d / 255)^2 / 12 for each of them."""
    values = np.random.default_rng(3).normal(size=100_000)
    usual = recorded(values)
    with_outlier = recorded(np.append(values, 60.0))
    outlier = np.flatnonzero(with_outlier.counts)[-1]
    counts = tuple(count if place == outlier else count * times for place, count in enumerate(with_outlier.counts))
    found = least_error(replace(with_outlier, counts=counts))
    assert ((255 - found.zero_point) * found.scale < 10.0) == is_clipped
    if is_clipped:
        whole = covering(usual.minimum, 60.0)
        assert error_of(values, found) < error_of(values, whole) / 20


def test_even_values_are_not_clipped() -> None:
    values = np.linspace(-1.0, 1.0, 50_000)
    found, whole = least_error(recorded(values)), covering(-1.0, 1.0)
    assert found.scale == pytest.approx(whole.scale, rel=0.01) and found.zero_point in (127, 128)


def test_values_of_one_sign() -> None:
    """Like GELU's: a long end above, a short one below."""
    values = np.abs(np.random.default_rng(4).normal(size=50_000)) - 0.17
    found = least_error(recorded(values))
    assert found.zero_point < 20 and -found.zero_point * found.scale == pytest.approx(-0.17, abs=0.02)


def test_smoothed_channels() -> None:
    """A channel that is 16 times as wide takes 16^0.75 = 8 times the divisor: the others get 8 times the levels."""
    values_ti = np.random.default_rng(5).uniform(-1.0, 1.0, size=(4000, 4)) * (16.0, 1.0, 1.0, 0.0)
    histogram = recorded(values_ti)
    found, whole = smoothed(histogram), covering(histogram.minimum, histogram.maximum)
    assert STRENGTH == 0.75 and found.divisors[0] / found.divisors[1] == pytest.approx(8.0, rel=1e-2)
    assert 0.0 < found.divisors[3] < found.divisors[1], "a channel that is always 0"
    divisors_i = np.array(found.divisors)
    narrow = (values_ti / divisors_i)[:, 1]
    assert error_of(narrow, found) ** 0.5 * divisors_i[1] < error_of(values_ti[:, 1], whole) ** 0.5 / 6
    assert -found.zero_point * found.scale <= (values_ti / divisors_i).min() + found.scale
