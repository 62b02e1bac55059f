"""rules: every exit rule against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.decisions.rules import (
    RULES,
    HeadOutputs,
    below_threshold,
    doubt,
    label_doubt,
    normalized_entropy,
    normalized_entropy_of_one,
    softmax,
)

LN2, LN3, LN5 = math.log(2.0), math.log(3.0), math.log(5.0)


def floats(*values: object) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32)


def outputs(logits_bc: NDArray[np.float32], threshold: float) -> HeadOutputs:
    return HeadOutputs(uncertainty_b=normalized_entropy(logits_bc), threshold=threshold, patience=1)


def heads(policy: Policy, *probabilities: tuple[float, ...]) -> list[bool]:
    """What the policy decides of one text whose heads give these probabilities, one after another."""
    history = policy.history(1)
    return [
        bool(policy.exits(np.log(floats(row)), layer, history)[0]) for layer, row in enumerate(probabilities, start=1)
    ]


def test_softmax_of_log_odds() -> None:
    assert softmax(floats([0.0, LN3], [0.0, 0.0])) == pytest.approx(np.array([[0.25, 0.75], [0.5, 0.5]]), abs=1e-7)


def test_entropy_is_normalized_by_classes() -> None:
    # 1/4, 3/4: (1/4 ln 4 + 3/4 ln 4/3) / ln 2 = 0.562335 / 0.693147
    assert normalized_entropy(floats([0.0, LN3])) == pytest.approx([0.811278], abs=1e-6)
    # 1/8, 2/8, 5/8: (1/8 ln 8 + 1/4 ln 4 + 5/8 ln 8/5) / ln 3 = 0.900256 / 1.098612
    assert normalized_entropy(floats([0.0, LN2, LN5])) == pytest.approx([0.819449], abs=1e-6)


def test_entropy_is_shift_invariant() -> None:
    shifted = floats([100.0, 100.0 + LN3], [-100.0, -100.0 + LN3])
    assert normalized_entropy(shifted) == pytest.approx([0.811278, 0.811278], abs=1e-5)


def test_saturated_logits() -> None:
    entropy_b = normalized_entropy(floats([1e4, -1e4], [-3e38, 3e38], [0.0, 800.0]))
    assert entropy_b.tolist() == [0.0, 0.0, 0.0]
    assert softmax(floats([1e4, -1e4])).tolist() == [[1.0, 0.0]]


def test_certainty_is_positive_zero() -> None:
    # Shown to people with three digits: -0.0 reads "-0.000".
    assert not np.signbit(normalized_entropy(floats([1e4, -1e4]))).any()


@pytest.mark.parametrize("classes", range(2, 14))
def test_uniform_entropy_is_one(classes: int) -> None:
    for uncertainty in (normalized_entropy, doubt):
        uniform = float(uncertainty(np.zeros((1, classes), dtype=np.float32))[0])
        assert uniform == pytest.approx(1.0, abs=1e-12)
        assert uniform <= 1.0


def test_exit_strictly_below_threshold() -> None:
    assert below_threshold(outputs(floats([4.0, -4.0], [0.1, 0.0]), 0.2)).tolist() == [True, False]
    exact = float(normalized_entropy(floats([0.0, LN3]))[0])
    assert below_threshold(outputs(floats([0.0, LN3]), exact)).tolist() == [False]
    assert below_threshold(outputs(floats([0.0, LN3]), math.nextafter(exact, 1.0))).tolist() == [True]


def test_exit_threshold_ends() -> None:
    logits_bc = floats([1e4, -1e4], [0.01, 0.0], [0.0, 0.0])
    assert below_threshold(outputs(logits_bc, 0.0)).tolist() == [False, False, False]
    assert below_threshold(outputs(logits_bc, 1.0)).tolist() == [True, True, False]


def test_doubt_by_hand() -> None:
    # (1 - 9/10) x 2 / 1 = 0.2; (1 - 5/8) x 3 / 2 = 0.5625.
    assert doubt(np.log(floats([0.1, 0.9]))) == pytest.approx([0.2], abs=1e-6)
    assert doubt(floats([0.0, LN2, LN5])) == pytest.approx([0.5625], abs=1e-6)
    assert doubt(floats([1e4, -1e4])).tolist() == [0.0]


def test_max_probability_rule() -> None:
    policy = Policy(rule="max-probability", exit_threshold=0.3)
    assert heads(policy, (0.8, 0.2), (0.9, 0.1)) == [False, True]  # doubts of 0.4 and 0.2
    assert heads(Policy(rule="max-probability"), (1.0 - 1e-9, 1e-9)) == [False]


def test_patience_rule() -> None:
    a, b = (0.6, 0.4), (0.4, 0.6)
    # Answers A, B, B, B: with patience 1 the third head answers, with patience 2 the fourth.
    assert heads(Policy(rule="patience", patience=1), a, b, b, b) == [False, False, True, True]
    assert heads(Policy(rule="patience", patience=2), a, b, b, b) == [False, False, False, True]
    assert heads(Policy(rule="patience", patience=1), a, b, a, b) == [False] * 4


def test_confident_patience_rule() -> None:
    sure_a, sure_b, unsure = (0.99, 0.01), (0.01, 0.99), (0.6, 0.4)
    policy = Policy(rule="confident-patience", patience=2, exit_threshold=0.5)
    assert heads(policy, sure_a, unsure, sure_a, sure_b) == [False, False, False, True]
    assert heads(policy, unsure, unsure, unsure) == [False] * 3


def test_threshold_per_exit() -> None:
    head = (0.8, 0.2)  # entropy 0.722
    policy = Policy(exit_thresholds=(0.7, 0.75, 0.0))
    assert heads(policy, head, head, head) == [False, True, False]


def test_history_of_unevaluated_rows() -> None:
    policy = Policy(rule="patience", patience=1)
    history = policy.history(2)
    assert history is not None
    both, first = np.array([True, True]), np.array([True, False])
    assert policy.exits(floats([1.0, 0.0], [0.0, 1.0]), 1, history, both).tolist() == [False, False]
    assert policy.exits(floats([0.0, 1.0]), 2, history, first).tolist() == [False]  # another label than before
    assert policy.exits(floats([1.0, 0.0], [0.0, 1.0]), 3, history, both).tolist() == [False, True]
    history.keep(np.array([False, True]))
    assert policy.exits(floats([0.0, 1.0]), 4, history).tolist() == [True]


def test_history_only_with_memory() -> None:
    assert {name for name in RULES if Policy(rule=name).history(1) is not None} == {"patience", "confident-patience"}
    assert Policy(rule="patience", no_exit=True).history(1) is None


def test_label_doubt() -> None:
    # 0.6 against 0.4 and 1/8, 2/8, 5/8: 1 - 0.2 and 1 - 3/8.
    assert label_doubt(np.log(floats([0.6, 0.4]))) == pytest.approx([0.8], abs=1e-6)
    assert label_doubt(floats([0.0, LN2, LN5])) == pytest.approx([0.625], abs=1e-6)
    assert label_doubt(floats([0.5, 0.5, -9.0])) == pytest.approx([1.0], abs=1e-12)


def test_entropy_of_one_row() -> None:
    logits_bc = np.random.default_rng(0).normal(0.0, 4.0, (200, 5)).astype(np.float32)
    ones = [normalized_entropy_of_one(row) for row in logits_bc.tolist()]
    assert np.abs(normalized_entropy(logits_bc) - ones).max() <= 1e-12


@pytest.mark.parametrize("name", RULES)
def test_distance_to_a_decision(name: str) -> None:
    rule = RULES[name]
    expected = 0.75 if name == "patience" else 0.15
    assert rule.distance(0.25, 0.4) == pytest.approx(expected)
    assert (rule.distance(0.25, 0.0) == math.inf) == (name != "patience")
