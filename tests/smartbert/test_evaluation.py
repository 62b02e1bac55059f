"""evaluation.py on three recorded texts with three layers and two classes, every decision worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smartbert.evaluation import THRESHOLDS, Recording, choose_exit_threshold, curve, summarise
from smartbert_runtime.policy import Policy

RUN, SKIP = -2.0, 2.0  # skip logits either side of threshold 0.5
# Logits of a two-class head, and its normalised entropy:
SURE_0, SURE_1 = (10.0, -10.0), (-10.0, 10.0)  # 0.00
LIKELY_1 = (0.0, math.log(9.0))  # p 0.9: (0.9 ln 1/0.9 + 0.1 ln 1/0.1) / ln 2 = 0.469
TOSS_1 = (0.0, math.log(1.5))  # p 0.6: 0.971

# text, label: layer 1              layer 2                    layer 3
#    A, 0      run, sure 0          skip (but A is gone)       run, sure 0
#    B, 1      skip, sure 0         run, likely 1 (0.469)      run, sure 0
#    C, 0      run, toss-up 1       skip, sure 1               skip, sure 0 (the last head, asked in any case)
RECORDING = Recording(
    skip_logits_rl=np.array([[RUN, SKIP, RUN], [SKIP, RUN, RUN], [RUN, SKIP, SKIP]], dtype=np.float32),
    logits_rlc=np.array(
        [[SURE_0, SURE_0, SURE_0], [SURE_0, LIKELY_1, SURE_0], [TOSS_1, SURE_1, SURE_0]], dtype=np.float32
    ),
    label_ids_r=np.array([0, 1, 0]),
)


def test_summary_at_an_exit_threshold_equals_the_hand_count() -> None:
    # At 0.5: A exits at 1 (right), B at 2 (right), C runs 1, skips 2 and 3, and is answered by head 3 (right).
    summary = summarise(RECORDING, Policy(exit_threshold=0.5), ("no", "yes"))
    assert summary.texts == 3
    assert summary.accuracy == 1.0
    assert summary.recall == {"no": 1.0, "yes": 1.0}
    assert summary.mean_layers_run == pytest.approx((1 + 1 + 1) / 3)
    assert summary.skip_rate == pytest.approx((1 / 3, 1 / 3, 1 / 3))  # B; C, not A, which has left; C
    assert summary.exit_rate == pytest.approx((1 / 3, 1 / 3, 1 / 3))
    # Each head alone, whoever asks it: head 1 right for A; head 2 for A and B; head 3 for A and C.
    assert summary.exit_accuracy == pytest.approx((1 / 3, 2 / 3, 2 / 3))


def test_summary_at_full_depth_equals_the_hand_count() -> None:
    # Exits never: A runs 1 and 3, B runs 2 and 3 and head 3 gets it wrong, C runs 1.
    summary = summarise(RECORDING, Policy(exit_threshold=0.0), ("no", "yes"))
    assert summary.accuracy == pytest.approx(2 / 3)
    assert summary.recall == {"no": 1.0, "yes": 0.0}
    assert summary.mean_layers_run == pytest.approx((2 + 2 + 1) / 3)
    assert summary.skip_rate == pytest.approx((1 / 3, 2 / 3, 1 / 3))
    assert summary.exit_rate == (0.0, 0.0, 1.0)


def test_a_label_without_texts_has_no_recall() -> None:
    only_no = Recording(
        skip_logits_rl=RECORDING.skip_logits_rl[:1],
        logits_rlc=RECORDING.logits_rlc[:1],
        label_ids_r=RECORDING.label_ids_r[:1],
    )
    assert summarise(only_no, Policy(), ("no", "yes")).recall == {"no": 1.0}


def test_the_skip_threshold_decides_who_skips() -> None:
    # sigmoid(2) = 0.88: at 0.9 nobody skips, so C meets head 2, sure of the wrong class.
    summary = summarise(RECORDING, Policy(skip_threshold=0.9, exit_threshold=0.5), ("no", "yes"))
    assert summary.skip_rate == (0.0, 0.0, 0.0)
    assert summary.exit_rate == pytest.approx((2 / 3, 1 / 3, 0.0))  # A and B at 1, C at 2
    assert summary.accuracy == pytest.approx(1 / 3)
    assert summary.mean_layers_run == pytest.approx((1 + 1 + 2) / 3)


def test_curve_has_a_point_every_hundredth_and_turns_where_the_entropies_lie() -> None:
    points = curve(RECORDING, 0.5)
    assert [point.exit_threshold for point in points] == [round(step / 100, 2) for step in range(101)]
    shown = {point.exit_threshold: (point.accuracy, point.mean_layers_run) for point in points}
    assert shown[0.0] == pytest.approx((2 / 3, 5 / 3))  # nobody exits
    assert shown[0.01] == pytest.approx((2 / 3, 4 / 3))  # A exits at 1
    assert shown[0.46] == pytest.approx((2 / 3, 4 / 3))
    assert shown[0.47] == pytest.approx((1.0, 3 / 3))  # B, entropy 0.469, exits at 2 in time
    assert shown[0.97] == pytest.approx((1.0, 3 / 3))
    assert shown[0.98] == pytest.approx((2 / 3, 3 / 3))  # C, entropy 0.971, exits at 1 with the wrong answer
    assert shown[1.0] == shown[0.98]
    assert len(points) == len(THRESHOLDS) == 101


def _changing(count: int, of: int) -> Recording:
    """`of` texts of two layers, all sure of class 0 at layer 1; for `count` of them the last head says class 1.

    Entropy 0.00 at layer 1: every threshold from 0.01 on changes exactly `count` answers.
    """
    last = [SURE_1] * count + [SURE_0] * (of - count)
    return Recording(
        skip_logits_rl=np.full((of, 2), RUN, dtype=np.float32),
        logits_rlc=np.array([[SURE_0, answer] for answer in last], dtype=np.float32),
        label_ids_r=np.zeros(of, dtype=np.int64),
    )


@pytest.mark.parametrize(
    ("changed", "texts", "threshold"),
    # P(Binomial(505, 0.01) <= 1) = 0.99^505 (1 + 505 / 99) = 0.0381, and 0.1193 for <= 2.
    # P(Binomial(299, 0.01) <= 0) = 0.99^299 = 0.0495; the other way round 0.99^298 = 0.0500 is just above 5 %.
    [(1, 505, 1.0), (2, 505, 0.0), (0, 299, 1.0), (1, 299, 0.0)],
)
def test_a_threshold_is_taken_only_when_the_texts_vouch_for_it(changed: int, texts: int, threshold: float) -> None:
    choice = choose_exit_threshold(_changing(changed, texts), 0.5, max_disagreement=0.01, confidence=0.95)
    assert choice.certain
    assert choice.exit_threshold == threshold
    assert (choice.changed, choice.texts) == (changed if threshold else 0, texts)


def test_too_few_texts_take_the_largest_threshold_that_changes_nothing() -> None:
    # 0.99^298 = 0.05003 > 0.05: not even "no answer changed" is enough.
    choice = choose_exit_threshold(_changing(0, 298), 0.5, max_disagreement=0.01, confidence=0.95)
    assert (choice.exit_threshold, choice.changed, choice.certain) == (1.0, 0, False)
    choice = choose_exit_threshold(_changing(1, 298), 0.5, max_disagreement=0.01, confidence=0.95)
    assert (choice.exit_threshold, choice.changed, choice.certain) == (0.0, 0, False)


def test_the_choice_stops_below_the_first_changed_answer() -> None:
    # RECORDING: full depth says 0, 0, 0; from 0.47 on B's answer becomes 1. Three texts vouch for nothing.
    choice = choose_exit_threshold(RECORDING, 0.5, max_disagreement=0.01, confidence=0.95)
    assert (choice.exit_threshold, choice.changed, choice.certain) == (0.46, 0, False)


def test_the_choice_is_about_changed_answers_and_not_about_accuracy() -> None:
    # The exit at 0.47 makes accuracy better (2/3 -> 1), and still counts as a change.
    better = curve(RECORDING, 0.5)[47].accuracy
    assert better == 1.0
    choice = choose_exit_threshold(RECORDING, 0.5, max_disagreement=0.0, confidence=0.95)
    assert choice.exit_threshold == 0.46


def test_any_disagreement_allowed_takes_the_last_threshold() -> None:
    choice = choose_exit_threshold(_changing(50, 60), 0.5, max_disagreement=1.0, confidence=0.95)
    assert (choice.exit_threshold, choice.changed) == (1.0, 50)
