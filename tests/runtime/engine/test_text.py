"""alone: one text by itself is decided as it is in a batch, asks the same parts, and keeps a deadline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.text import run_alone
from smartbert_runtime.tokenizer import Tokens
from tests.conftest import LAYERS, SENTENCES
from tests.runtime.engine.test_batch import POLICIES, assert_same, run
from tests.runtime.engine.torch_parts import TorchParts, encode

LIMITS = [
    Policy(exit_threshold=0.5, max_layers=1),
    Policy(exit_threshold=0.5, max_layers=2, no_skip=True),
    Policy(max_layers=2, no_exit=True),
]


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return encode(SENTENCES)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("policy", POLICIES + LIMITS, ids=repr)
def test_a_text_alone_goes_the_way_that_it_goes_in_a_batch(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy, fused: bool
) -> None:
    expected = [outcome.trace for outcome in run(TorchParts(model), tokens, policy, fused=fused)]
    found = [
        run_alone(TorchParts(model), tokens.rows([row]), policy, layers=LAYERS, fused=fused).trace
        for row in range(len(SENTENCES))
    ]
    assert_same(found, expected)
    assert len({trace.decisions() for trace in found}) > 1 or policy.no_skip or policy.max_layers == 1


@pytest.mark.parametrize("fused", [False, True])
def test_no_part_is_asked_that_a_batch_of_one_would_not_ask(
    model: SmartBertForSequenceClassification, tokens: Tokens, fused: bool
) -> None:
    policy = Policy(exit_threshold=0.5)
    for row in range(len(SENTENCES)):
        alone, batch = TorchParts(model), TorchParts(model)
        run_alone(alone, tokens.rows([row]), policy, layers=LAYERS, fused=fused)
        run(batch, tokens.rows([row]), policy, fused=fused)
        assert [call.part for call in alone.calls] == [call.part for call in batch.calls]


def test_once_the_time_is_up_the_layer_that_was_run_answers(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    policy = replace(Policy(no_skip=True), deadline_ms=1e-6)
    outcome = run_alone(TorchParts(model), tokens.rows([0]), policy, layers=LAYERS)
    assert outcome.trace.decisions() == ((1,), (), 1)
    assert outcome.seconds > 0.0
