"""trace: what counts as a decision, how near a call was, and the steps as a person follows them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.trace import Trace

NAN = math.nan


def make_trace(skip_logits: list[float], entropies: list[float]) -> Trace:
    """Four layers: 1 and 3 run, 2 skipped, 3 answered."""
    return Trace(
        layers_run=(1, 3),
        layers_skipped=(2,),
        exit_layer=3,
        logits_c=np.array([0.5, -0.5], dtype=np.float32),
        skip_logit_l=np.array(skip_logits),
        uncertainty_l=np.array(entropies),
    )


def test_decisions() -> None:
    assert make_trace([NAN] * 4, [NAN] * 4).decisions() == ((1, 3), (2,), 3)


def test_margin_of_gates_and_heads() -> None:
    trace = make_trace([-0.3, 2.0, -1.0, NAN], [0.9, NAN, 0.45, NAN])
    assert trace.margin(Policy(exit_threshold=0.5)) == pytest.approx(0.05)
    assert trace.margin(Policy(exit_threshold=0.0)) == pytest.approx(0.3)


def test_margin_in_logits() -> None:
    # sigmoid(1.0) = 0.731 is 0.019 from 0.75, but 1.0 is 0.0986 from ln 3.
    trace = make_trace([1.0, NAN, NAN, NAN], [NAN] * 4)
    assert trace.margin(Policy(skip_threshold=0.75)) == pytest.approx(math.log(3.0) - 1.0)


def test_margin_without_decisions() -> None:
    assert make_trace([NAN] * 4, [NAN] * 4).margin(Policy(exit_threshold=0.5)) == math.inf
    only_gates = make_trace([-5.0, 5.0, -5.0, NAN], [NAN] * 4)
    assert only_gates.margin(Policy(skip_threshold=1.0, exit_threshold=0.5)) == math.inf
    assert only_gates.margin(Policy(skip_threshold=0.0, exit_threshold=0.5)) == math.inf


def test_margin_with_threshold_per_exit() -> None:
    trace = make_trace([NAN] * 4, [0.9, NAN, 0.45, NAN])
    assert trace.margin(Policy(exit_thresholds=(0.7, 0.5, 0.35, 0.1))) == pytest.approx(0.1)


def test_margin_of_patience() -> None:
    # What turns a label is a tie: heads at 0.9 and 0.45 are 0.1 and 0.55 from it, whatever the threshold.
    trace = make_trace([NAN] * 4, [0.9, NAN, 0.45, NAN])
    assert trace.margin(Policy(rule="patience", exit_threshold=0.45)) == pytest.approx(0.1)


def test_steps_follow_layers() -> None:
    trace = make_trace([-math.log(3.0), math.log(3.0), 0.0, NAN], [0.9, NAN, 0.2, NAN])
    steps = list(trace.steps())
    assert [(step.layer, step.skipped, step.uncertainty, step.answered) for step in steps] == [
        (1, False, 0.9, False),
        (2, True, None, False),
        (3, False, 0.2, True),
    ]
    assert [step.skip_probability for step in steps] == pytest.approx([0.25, 0.75, 0.5])


def test_steps_without_gates() -> None:
    assert [step.skip_probability for step in make_trace([NAN] * 4, [NAN] * 4).steps()] == [None, None, None]


def test_steps_with_saturated_gates() -> None:
    steps = list(make_trace([-1000.0, 1000.0, -1000.0, NAN], [NAN] * 4).steps())
    assert [step.skip_probability for step in steps] == [0.0, 1.0, 0.0]


def test_answer_after_skipped_last_layer() -> None:
    trace = Trace(
        layers_run=(1,),
        layers_skipped=(2,),
        exit_layer=2,
        logits_c=np.zeros(2, dtype=np.float32),
        skip_logit_l=np.array([-1.0, 1.0]),
        uncertainty_l=np.array([0.9, NAN]),
    )
    assert [(step.layer, step.skipped, step.answered) for step in trace.steps()] == [(1, False, False), (2, True, True)]
