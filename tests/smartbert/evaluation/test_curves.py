"""curves.py: summaries, curves and what lies between their points, on texts and numbers worked out by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from smartbert.evaluation.curves import (
    EXIT_THRESHOLDS,
    CurvePoint,
    at_macs,
    bracket,
    curve_point,
    entropy_curve,
    patience_curve,
    summarize,
)
from smartbert.evaluation.decisions import Decisions, Recording, decide
from smartbert_runtime.decisions.policy import Policy
from tests.smartbert.evaluation.recordings_by_hand import NO_HEAD, RECORDING, RUN, SURE_0, SURE_1, answering


def cost(decisions: Decisions) -> NDArray[np.int64]:
    """Every layer run costs 100 MAC, nothing else costs any."""
    return decisions.layers_run_r * 100


def test_summary_by_hand() -> None:
    # At 0.5: A exits at 1 (right), B at 2 (right), C runs 1, skips 2 and 3, and is answered by head 3 (right).
    summary = summarize(RECORDING, Policy(exit_threshold=0.5), ("no", "yes"))
    assert summary.texts == 3
    assert (summary.accuracy, summary.f1, summary.matthews) == (1.0, 1.0, 1.0)
    assert summary.recall == {"no": 1.0, "yes": 1.0}
    assert summary.mean_layers_run == pytest.approx((1 + 1 + 1) / 3)
    assert summary.skip_rate == pytest.approx((1 / 3, 1 / 3, 1 / 3))  # B; C, not A, which has left; C
    assert summary.exit_rate == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    # Each head alone, whoever asks it: head 1 right for A; head 2 for A and B; head 3 for A and C.
    assert summary.exit_accuracy == pytest.approx((1 / 3, 2 / 3, 2 / 3))


def test_summary_at_full_depth() -> None:
    # Exits never: A runs 1 and 3, B runs 2 and 3 and head 3 gets it wrong, C runs 1.
    summary = summarize(RECORDING, Policy(exit_threshold=0.0), ("no", "yes"))
    assert summary.accuracy == pytest.approx(2 / 3)
    assert (summary.f1, summary.matthews) == (0.0, 0.0)  # no text is answered "yes"
    assert summary.recall == {"no": 1.0, "yes": 0.0}
    assert summary.mean_layers_run == pytest.approx((2 + 2 + 1) / 3)
    assert summary.skip_rate == pytest.approx((1 / 3, 2 / 3, 1 / 3))
    assert summary.exit_rate == (0.0, 0.0, 1.0)


def test_recall_of_absent_label() -> None:
    only_no = Recording(
        skip_logits_rl=RECORDING.skip_logits_rl[:1],
        logits_rlc=RECORDING.logits_rlc[:1],
        label_ids_r=RECORDING.label_ids_r[:1],
    )
    assert summarize(only_no, Policy(), ("no", "yes")).recall == {"no": 1.0}


def test_summary_at_skip_threshold() -> None:
    # sigmoid(2) = 0.88: at 0.9 nobody skips, so C meets head 2, sure of the wrong class.
    summary = summarize(RECORDING, Policy(skip_threshold=0.9, exit_threshold=0.5), ("no", "yes"))
    assert summary.skip_rate == (0.0, 0.0, 0.0)
    assert summary.exit_rate == pytest.approx((2 / 3, 1 / 3, 0.0))  # A and B at 1, C at 2
    assert summary.accuracy == pytest.approx(1 / 3)
    # Answers 0, 0, 1 for labels 0, 1, 0: (1 x 3 - (2 x 2 + 1 x 1)) / (9 - 5) = -0.5.
    assert summary.matthews == pytest.approx(-0.5)
    assert summary.mean_layers_run == pytest.approx((1 + 1 + 2) / 3)


def test_layer_without_head() -> None:
    recording = Recording(
        skip_logits_rl=np.full((2, 3), RUN, dtype=np.float32),
        logits_rlc=np.array([[NO_HEAD, SURE_1, SURE_1], [NO_HEAD, SURE_0, SURE_1]], dtype=np.float32),
        label_ids_r=np.array([1, 1]),
    )
    summary = summarize(recording, Policy(exit_threshold=0.0), ("no", "yes"))
    # None, and not 0: NaN logits look like class 0 to an argmax.
    assert summary.exit_accuracy == (None, 0.5, 1.0)
    assert summary.exit_rate == (0.0, 0.0, 1.0)


def test_candidate_thresholds() -> None:
    assert list(EXIT_THRESHOLDS) == sorted(set(EXIT_THRESHOLDS))
    assert EXIT_THRESHOLDS[0] == 0.0 and EXIT_THRESHOLDS[1] == 1e-6 and EXIT_THRESHOLDS[-1] == 1.0
    assert EXIT_THRESHOLDS[-2] == 0.99999
    assert {step / 100 for step in range(101)} <= set(EXIT_THRESHOLDS)
    low = [value for value in EXIT_THRESHOLDS if 1e-6 <= value <= 0.1]
    assert max(dear / cheap for cheap, dear in pairwise(low)) < 1.06  # ten to the 1/40, rounded to four digits
    high = [1.0 - value for value in EXIT_THRESHOLDS if 0.9 <= value <= 0.99999]
    assert max(far / near for far, near in pairwise(high)) < 1.06


def test_entropy_curve() -> None:
    points = entropy_curve(RECORDING, Policy(skip_threshold=0.5), cost)
    values = [point.value for point in points]
    assert values == sorted(set(values)) and set(EXIT_THRESHOLDS) < set(values)
    shown = {point.value: (point.accuracy, point.mean_layers_run, point.macs) for point in points}
    assert shown[0.0] == pytest.approx((2 / 3, 5 / 3, 500 / 3))  # nobody exits
    assert shown[1e-6] == pytest.approx((2 / 3, 4 / 3, 400 / 3))  # A, entropy 6e-8, exits at 1
    assert shown[0.46] == pytest.approx((2 / 3, 4 / 3, 400 / 3))
    assert shown[0.47] == pytest.approx((1.0, 3 / 3, 100.0))  # B, entropy 0.469, exits at 2 in time
    assert shown[0.97] == pytest.approx((1.0, 3 / 3, 100.0))
    assert shown[0.98] == pytest.approx((2 / 3, 3 / 3, 100.0))  # C, entropy 0.971, exits at 1 with the wrong answer


def test_entropy_curve_of_unsure_heads() -> None:
    # Entropies of 0.99999 and more, as on WNLI: no threshold of a fixed list parts them.
    rng = np.random.default_rng(0)
    logits_rlc = (rng.standard_normal((50, 3, 2)) * 1e-4).astype(np.float32)
    unsure = Recording(
        skip_logits_rl=np.full((50, 3), RUN, dtype=np.float32),
        logits_rlc=logits_rlc,
        label_ids_r=np.zeros(50, dtype=np.int64),
    )
    costs = {round(point.macs) for point in entropy_curve(unsure, Policy(), cost)}
    assert len(costs) > 20


def test_entropy_curve_keeps_policy() -> None:
    # Nobody skips at 0.9: three layers for all at full depth, and A and B out after one at 0.5.
    points = {point.value: point for point in entropy_curve(RECORDING, Policy(skip_threshold=0.9), cost)}
    assert points[0.0].mean_layers_run == 3.0
    assert points[0.5].mean_layers_run == pytest.approx((1 + 1 + 2) / 3)


def test_patience_curve() -> None:
    # Labels are A. ABBB leaves at 3 with patience 1, at 4 with 2; AAAA at 2, 3, 4; ABAB never before 4.
    points = patience_curve(answering(["ABBB", "AAAA", "ABAB"]), Policy(), cost)
    assert [point.value for point in points] == [4, 3, 2, 1]
    assert [point.mean_layers_run for point in points] == pytest.approx([4.0, 4.0, 11 / 3, 3.0])
    assert [point.macs for point in points] == pytest.approx([400.0, 400.0, 1100 / 3, 300.0])
    assert [point.accuracy for point in points] == pytest.approx([1 / 3] * 4)


def test_curve_point() -> None:
    policy = Policy(skip_threshold=0.9, exit_threshold=0.5)
    point = curve_point(RECORDING, 0.5, decide(RECORDING, policy), cost)
    summary = summarize(RECORDING, policy, ())
    assert (point.value, point.macs) == pytest.approx((0.5, 400 / 3))
    assert (point.accuracy, point.f1, point.matthews) == (summary.accuracy, summary.f1, summary.matthews)
    assert point.mean_layers_run == summary.mean_layers_run


def _point(macs: float, accuracy: float, matthews: float = 0.0) -> CurvePoint:
    return CurvePoint(value=0.0, accuracy=accuracy, f1=0.0, matthews=matthews, mean_layers_run=0.0, macs=macs)


# Out of order, as a curve over skip thresholds may be: by cost 100, 200, 400.
POINTS = (_point(400.0, 0.90, 0.8), _point(100.0, 0.60, 0.0), _point(200.0, 0.80, 0.4))


@pytest.mark.parametrize(
    ("macs", "found", "accuracy", "matthews"),
    [
        (100.0, (1, 2, 0.0), 0.60, 0.0),  # a point itself
        (150.0, (1, 2, 0.5), 0.70, 0.2),
        (200.0, (2, 0, 0.0), 0.80, 0.4),
        (250.0, (2, 0, 0.25), 0.825, 0.5),  # a quarter of the texts at the dearer setting
        (400.0, (0, 0, 0.0), 0.90, 0.8),
        (9000.0, (0, 0, 0.0), 0.90, 0.8),  # cheaper throughout: its dearest point
    ],
)
def test_mixture_between_points(macs: float, found: tuple[int, int, float], accuracy: float, matthews: float) -> None:
    assert bracket(POINTS, macs) == pytest.approx(found)
    assert at_macs(POINTS, macs) == pytest.approx(accuracy)
    assert at_macs(POINTS, macs, "matthews") == pytest.approx(matthews)


def test_curve_too_expensive() -> None:
    assert bracket(POINTS, 99.9) is None
    assert at_macs(POINTS, 99.9) is None


def test_mixture_cost() -> None:
    found = bracket(POINTS, 333.0)
    assert found is not None
    cheap, dear, share = found
    assert (1 - share) * POINTS[cheap].macs + share * POINTS[dear].macs == pytest.approx(333.0)


def test_points_of_equal_cost() -> None:
    points = (_point(100.0, 0.5), _point(100.0, 0.7), _point(300.0, 0.9))
    assert at_macs(points, 200.0) == pytest.approx(0.8)  # half way from the second
    assert at_macs((_point(100.0, 0.5),), 100.0) == 0.5
