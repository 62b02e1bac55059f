"""trace: what counts as a decision, how near a call was, and the steps as a person follows them."""

from __future__ import annotations

import math

import numpy as np
import pytest

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
        entropy_l=np.array(entropies),
    )


def test_decisions_are_layers_run_layers_skipped_and_the_exit() -> None:
    assert make_trace([NAN] * 4, [NAN] * 4).decisions() == ((1, 3), (2,), 3)


def test_margin_is_the_nearest_call_of_gates_and_heads() -> None:
    trace = make_trace([-0.3, 2.0, -1.0, NAN], [0.9, NAN, 0.45, NAN])
    assert trace.margin(skip_threshold=0.5, exit_threshold=0.5) == pytest.approx(0.05)
    assert trace.margin(skip_threshold=0.5, exit_threshold=0.0) == pytest.approx(0.3)


def test_margin_of_a_gate_is_measured_in_logits_and_not_in_probabilities() -> None:
    # sigmoid(1.0) = 0.731 is 0.019 from 0.75, but 1.0 is 0.0986 from ln 3.
    trace = make_trace([1.0, NAN, NAN, NAN], [NAN] * 4)
    assert trace.margin(skip_threshold=0.75, exit_threshold=0.0) == pytest.approx(math.log(3.0) - 1.0)


def test_margin_is_infinite_when_nothing_was_asked_or_nothing_can_turn() -> None:
    assert make_trace([NAN] * 4, [NAN] * 4).margin(skip_threshold=0.5, exit_threshold=0.5) == math.inf
    only_gates = make_trace([-5.0, 5.0, -5.0, NAN], [NAN] * 4)
    assert only_gates.margin(skip_threshold=1.0, exit_threshold=0.5) == math.inf
    assert only_gates.margin(skip_threshold=0.0, exit_threshold=0.5) == math.inf


def test_steps_follow_the_layers_and_leave_out_those_not_reached() -> None:
    trace = make_trace([-math.log(3.0), math.log(3.0), 0.0, NAN], [0.9, NAN, 0.2, NAN])
    steps = list(trace.steps())
    assert [(step.layer, step.skipped, step.entropy, step.answered) for step in steps] == [
        (1, False, 0.9, False),
        (2, True, None, False),
        (3, False, 0.2, True),
    ]
    assert [step.skip_probability for step in steps] == pytest.approx([0.25, 0.75, 0.5])


def test_steps_without_gates_have_no_probability() -> None:
    assert [step.skip_probability for step in make_trace([NAN] * 4, [NAN] * 4).steps()] == [None, None, None]


def test_steps_show_saturated_gates_without_overflow() -> None:
    steps = list(make_trace([-1000.0, 1000.0, -1000.0, NAN], [NAN] * 4).steps())
    assert [step.skip_probability for step in steps] == [0.0, 1.0, 0.0]


def test_a_skipped_last_layer_can_be_the_one_that_answered() -> None:
    trace = Trace(
        layers_run=(1,),
        layers_skipped=(2,),
        exit_layer=2,
        logits_c=np.zeros(2, dtype=np.float32),
        skip_logit_l=np.array([-1.0, 1.0]),
        entropy_l=np.array([0.9, NAN]),
    )
    assert [(step.layer, step.skipped, step.answered) for step in trace.steps()] == [(1, False, False), (2, True, True)]
