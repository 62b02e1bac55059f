"""reference.py: the oracle itself follows the inference rule, seen on gates and heads that are told what to say."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from smartbert.modeling import ExitHead, SkipGate, SmartBertForSequenceClassification
from smartbert.reference import trace_one, trace_rows
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.tokenizer import Tokens
from smartbert_runtime.trace import Trace
from tests.conftest import LAYERS

# Token ids of a sentence; what it says does not matter here.
IDS, TYPES = [2, 40, 41, 42, 3], [0, 0, 0, 0, 0]


@torch.no_grad()
def _set(
    model: SmartBertForSequenceClassification, skips: tuple[bool, ...], sure: tuple[bool, ...] = (False,) * LAYERS
) -> None:
    """Gates that always or never skip; heads whose answer is class 1 for certain, or all three classes alike."""
    for index in range(LAYERS):
        gate, head = cast(SkipGate, model.gates[index]), cast(ExitHead, model.exits[index])
        gate.decide.weight.zero_()
        gate.decide.bias.fill_(2.0 if skips[index] else -2.0)
        head.classify.weight.zero_()
        head.classify.bias.copy_(torch.tensor([0.0, 30.0 if sure[index] else 0.0, 0.0]))


@torch.no_grad()
def _through(model: SmartBertForSequenceClassification, layers: tuple[int, ...], head: int) -> Tensor:
    """The logits of exit head `head` after exactly these layers, all numbered from 1."""
    x_bsh, mask_b11s = model.embed(torch.tensor([IDS]), torch.ones(1, len(IDS)), torch.tensor([TYPES]))
    for layer in layers:
        x_bsh = model.run_layer(layer - 1, x_bsh, mask_b11s)
    return cast(Tensor, model.exits[head - 1](x_bsh, mask_b11s))[0]


def _trace(model: SmartBertForSequenceClassification, **policy: float) -> Trace:
    return trace_one(model, IDS, TYPES, Policy(**policy))  # type: ignore[arg-type]


def test_skip_all(fresh_model: SmartBertForSequenceClassification) -> None:
    trace = _trace(fresh_model, skip_threshold=0.0, exit_threshold=1.0)
    assert trace.decisions() == ((), (1, 2, 3, 4), 4)
    assert np.isnan(trace.uncertainty_l).all()  # no exit was asked
    assert np.array_equal(trace.logits_c, _through(fresh_model, (), head=4).numpy())


def test_skip_none_and_never_exit(fresh_model: SmartBertForSequenceClassification) -> None:
    trace = _trace(fresh_model, skip_threshold=1.0, exit_threshold=0.0)
    assert trace.decisions() == ((1, 2, 3, 4), (), 4)
    assert not np.isnan(trace.skip_logit_l).any()
    assert np.isnan(trace.uncertainty_l).tolist() == [False, False, False, True]  # the last head answers unasked
    assert np.array_equal(trace.logits_c, _through(fresh_model, (1, 2, 3, 4), head=4).numpy())


def test_exit_at_once(fresh_model: SmartBertForSequenceClassification) -> None:
    trace = _trace(fresh_model, skip_threshold=1.0, exit_threshold=1.0)
    assert trace.decisions() == ((1,), (), 1)
    assert np.isnan(trace.skip_logit_l).tolist() == [False, True, True, True]
    assert np.array_equal(trace.logits_c, _through(fresh_model, (1,), head=1).numpy())


def test_full_depth_evaluates_no_gate_or_head(fresh_model: SmartBertForSequenceClassification) -> None:
    policy = Policy(skip_threshold=0.0, exit_threshold=1.0).at_full_depth()
    trace = trace_one(fresh_model, IDS, TYPES, policy)
    assert trace.decisions() == ((1, 2, 3, 4), (), 4)
    assert np.isnan(trace.skip_logit_l).all() and np.isnan(trace.uncertainty_l).all()


def test_skipped_layers_head_is_not_evaluated(
    fresh_model: SmartBertForSequenceClassification,
) -> None:
    _set(fresh_model, skips=(False, True, False, False), sure=(False, True, True, False))
    trace = _trace(fresh_model, skip_threshold=0.5, exit_threshold=0.5)
    assert trace.decisions() == ((1, 3), (2,), 3)
    assert trace.skip_logit_l[:3].tolist() == [-2.0, 2.0, -2.0]
    assert trace.uncertainty_l[0] == pytest.approx(1.0)  # three classes alike
    assert np.isnan(trace.uncertainty_l[1])
    assert trace.uncertainty_l[2] == pytest.approx(0.0, abs=1e-9)
    assert trace.logits_c.tolist() == [0.0, 30.0, 0.0]


def test_skipped_last_layer_answers(fresh_model: SmartBertForSequenceClassification) -> None:
    _set(fresh_model, skips=(False, False, False, True))
    cast(ExitHead, fresh_model.exits[3]).classify.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    trace = _trace(fresh_model, skip_threshold=0.5, exit_threshold=0.0)
    assert trace.decisions() == ((1, 2, 3), (4,), 4)
    assert np.array_equal(trace.logits_c, _through(fresh_model, (1, 2, 3), head=4).numpy())


def test_decisions_at_the_thresholds(
    fresh_model: SmartBertForSequenceClassification,
) -> None:
    _set(fresh_model, skips=(False,) * LAYERS)
    cast(SkipGate, fresh_model.gates[1]).decide.bias.data.fill_(0.0)  # sigmoid 0.5, the threshold
    # Two classes alike and the third impossible: normalized entropy ln 2 / ln 3, here also the threshold.
    cast(ExitHead, fresh_model.exits[0]).classify.bias.data.copy_(torch.tensor([0.0, 0.0, -800.0]))
    threshold = round(float(np.log(2.0) / np.log(3.0)), 12)  # entropies are rounded so
    trace = _trace(fresh_model, skip_threshold=0.5, exit_threshold=threshold)
    assert trace.decisions() == ((1, 3, 4), (2,), 4)
    assert trace.uncertainty_l[0] == pytest.approx(threshold, abs=1e-12)
    just_above = _trace(fresh_model, skip_threshold=0.5, exit_threshold=threshold + 1e-9)
    assert just_above.exit_layer == 1


def test_rows_are_traced_unpadded(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    policy = Policy(skip_threshold=0.5, exit_threshold=0.5)
    lengths = tokens.attention_mask_bs.sum(axis=1)
    assert lengths.min() < lengths.max()
    traces = trace_rows(model, tokens, policy)
    for row, trace in enumerate(traces):
        ids = [int(number) for number in tokens.input_ids_bs[row] if number != 0]  # 0 is [PAD]
        alone = trace_one(model, ids, [0] * len(ids), policy)
        assert trace.decisions() == alone.decisions()
        assert np.array_equal(trace.logits_c, alone.logits_c)
    assert len({trace.decisions() for trace in traces}) > 3  # the tiny model decides now this way, now that
