"""parity.compare: numbers within a tolerance, decisions exactly, near decisions listed and few."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.parity.compare import (
    LABEL_LOSS,
    LOGIT_TOLERANCE,
    DecisionReport,
    compare_traces,
    difference,
    expected_losses,
)
from smartbert_runtime.trace import Trace

POLICY = Policy(skip_threshold=0.5, exit_threshold=0.5)


def floats(*values: object) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def make_trace(
    *, exit_layer: int = 2, entropy: float = 0.3, skip_logit: float = -1.0, logits: tuple[float, float] = (1.0, 0.0)
) -> Trace:
    """Two layers: both run, or only the first one."""
    return Trace(
        layers_run=tuple(range(1, exit_layer + 1)),
        layers_skipped=(),
        exit_layer=exit_layer,
        logits_c=floats(*logits),
        skip_logit_l=np.array([skip_logit, math.nan]),
        uncertainty_l=np.array([entropy, math.nan]),
    )


def compare(*pairs: tuple[Trace, Trace], exact: bool = True) -> DecisionReport:
    return compare_traces([one for one, _ in pairs], [other for _, other in pairs], POLICY, exact=exact)


# Numbers


def test_difference_max_and_mean() -> None:
    found = difference(floats([1.0, 2.0], [3.0, 4.0]), floats([1.0, 2.5], [3.0, 3.0]), 1.0)
    assert (found.max_abs, found.mean_abs, found.tolerance) == (1.0, 0.375, 1.0)
    assert found.ok
    assert not difference(floats(0.0), floats(1.001), 1.0).ok


def test_difference_beyond_float32() -> None:
    # In float32, 3e38 - -3e38 overflows to infinity.
    assert difference(floats(3e38), floats(-3e38), 1.0).max_abs == pytest.approx(6e38)


def test_other_shapes_differ_infinitely() -> None:
    found = difference(floats([1.0, 1.0]), floats(1.0, 1.0), 1.0)
    assert (found.max_abs, found.mean_abs, found.ok) == (math.inf, math.inf, False)


def test_nan_is_never_ok() -> None:
    assert not difference(floats(1.0, 2.0), floats(1.0, math.nan), math.inf).ok
    assert not difference(floats(math.nan), floats(math.nan), 1.0).ok


# Decisions


def test_equal_traces_are_ok() -> None:
    report = compare((make_trace(), make_trace()), (make_trace(exit_layer=1), make_trace(exit_layer=1)))
    assert report.ok
    assert (report.texts, report.near, report.different, report.label_agreement) == (2, (), (), 1.0)
    assert report.logits.max_abs == 0.0
    assert report.nearest_margin == pytest.approx(0.2)


def test_different_decision_is_listed() -> None:
    report = compare((make_trace(), make_trace()), (make_trace(exit_layer=1), make_trace(exit_layer=2)))
    assert (report.different, report.near, report.ok) == ((1,), (), False)


@pytest.mark.parametrize(("entropy", "skip_logit"), [(0.50009, -1.0), (0.3, -0.00009)])
def test_near_decision_is_listed(entropy: float, skip_logit: float) -> None:
    turned = make_trace(entropy=entropy, skip_logit=skip_logit, exit_layer=1), make_trace(exit_layer=2)
    plain = make_trace(), make_trace()
    report = compare(turned, *[plain] * 499)
    assert (report.near, report.different, report.ok) == ((0,), (), True)


@pytest.mark.parametrize(("entropy", "skip_logit"), [(0.50011, -1.0), (0.3, -0.00011)])
def test_decision_outside_margin(entropy: float, skip_logit: float) -> None:
    turned = make_trace(entropy=entropy, skip_logit=skip_logit, exit_layer=1), make_trace(exit_layer=2)
    report = compare(turned, *[(make_trace(), make_trace())] * 499)
    assert (report.near, report.different, report.ok) == ((), (0,), False)


def test_share_of_near_decisions() -> None:
    near, plain = (make_trace(entropy=0.5), make_trace(entropy=0.5)), (make_trace(), make_trace())
    assert compare(near, *[plain] * 499).ok
    report = compare(near, near, *[plain] * 498)
    assert (report.near, report.different, report.ok) == ((0, 1), (), False)


def test_logits_tolerance() -> None:
    assert LOGIT_TOLERANCE == 1e-4
    assert compare((make_trace(), make_trace(logits=(1.00009, 0.0)))).ok
    report = compare((make_trace(), make_trace(logits=(1.00011, 0.0))))
    assert (report.different, report.logits.ok, report.ok) == ((), False, False)
    report = compare((make_trace(), make_trace()), (make_trace(), make_trace(exit_layer=1, logits=(9.0, 0.0))))
    assert (report.different, report.logits.max_abs) == ((1,), 0.0)


def test_logits_without_equal_decisions() -> None:
    report = compare((make_trace(), make_trace(exit_layer=1)))
    assert (report.logits.max_abs, report.logits.ok, report.ok) == (math.inf, False, False)


def test_label_agreement() -> None:
    turned = make_trace(), make_trace(logits=(0.0, 1.0))
    report = compare(turned, (make_trace(), make_trace()), (make_trace(), make_trace()), (make_trace(), make_trace()))
    assert report.label_agreement == 0.75


def test_exit_agreement() -> None:
    plain = make_trace(), make_trace()
    report = compare((make_trace(), make_trace(exit_layer=1)), plain, plain, plain)
    assert (report.exit_agreement, report.label_agreement) == (0.75, 1.0)


# Quantized weights


def test_quantized_needs_equal_labels() -> None:
    # Other decisions, near calls and logits far off: all is reported, nothing is held against them.
    moved = make_trace(entropy=0.5), make_trace(exit_layer=1, logits=(9.0, 0.0))
    near = make_trace(entropy=0.5), make_trace(entropy=0.7, logits=(1.5, 0.0))
    other = make_trace(), make_trace(exit_layer=1, logits=(0.2, 0.1))
    report = compare(moved, near, other, exact=False)
    assert report.ok and not report.exact
    assert (report.near, report.different, report.label_agreement) == ((0, 1), (2,), 1.0)
    assert report.exit_agreement == pytest.approx(1 / 3)
    assert report.logits.max_abs == 0.5 and not report.logits.ok
    assert not compare(moved, near, other).ok


def test_quantized_logits_are_reported() -> None:
    report = compare((make_trace(), make_trace(exit_layer=1)), exact=False)
    assert (report.logits.max_abs, report.ok) == (math.inf, True)


@pytest.mark.parametrize(("texts", "allowed"), [(2, 1), (24, 1), (50, 1), (99, 1), (100, 2), (1000, 20)])
def test_quantized_label_loss(texts: int, allowed: int) -> None:
    """Of sure answers, each of which costs almost one whole text."""
    assert LABEL_LOSS == 0.02
    sure = make_trace(logits=(20.0, 0.0))
    plain, turned = (sure, sure), (sure, make_trace(logits=(0.0, 1.0)))
    for wrong, good in ((0, True), (allowed, True), (allowed + 1, False)):
        report = compare(*[turned] * wrong, *[plain] * (texts - wrong), exact=False)
        assert report.ok == good
        assert report.label_agreement == pytest.approx(1.0 - wrong / texts)
        assert report.label_loss == pytest.approx(wrong / texts)


def test_unsure_labels_may_change() -> None:
    """Half of the texts answer otherwise, and PyTorch itself gave both answers .525 and .475."""
    unsure, other = make_trace(logits=(0.1, 0.0)), make_trace(logits=(0.0, 0.1))
    report = compare(*[(unsure, other), (unsure, unsure)] * 20, exact=False)
    assert (report.label_agreement, report.ok) == (0.5, True)
    assert report.label_loss == pytest.approx(0.5 * 0.05, abs=1e-3)


def test_expected_losses_by_hand() -> None:
    expected = np.log(np.array([[0.7, 0.2, 0.1], [0.5, 0.45, 0.05]], dtype=np.float32))
    found = expected_losses(expected, np.array([[0, 0, 1], [1, 0, 0]], dtype=np.float32))
    np.testing.assert_allclose(found, [0.6, 0.0], atol=1e-6)


def test_unequal_numbers_of_traces() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare_traces([make_trace()], [make_trace(), make_trace()], POLICY)
