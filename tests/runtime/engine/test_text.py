"""engine.text: one text is decided as by the torch oracle, runs the parts of a batch of one, and keeps a deadline."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.text import run_text
from smartbert_runtime.tokenizer import Tokens
from tests.conftest import LAYERS, SENTENCES
from tests.runtime.engine.engine_cases import NO_SKIP, POLICIES, POLICY, assert_same, run
from tests.runtime.engine.torch_parts import TorchParts


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_text_matches_oracle(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy, fused: bool
) -> None:
    found = [
        run_text(TorchParts(model), tokens.rows([row]), policy, layers=LAYERS, fused=fused).trace
        for row in range(len(SENTENCES))
    ]
    assert_same(found, trace_rows(model, tokens, policy))
    assert len({trace.decisions() for trace in found}) > 1 or policy.no_skip or policy.max_layers == 1


@pytest.mark.parametrize("fused", [False, True])
def test_text_runs_parts_of_batch(model: SmartBertForSequenceClassification, tokens: Tokens, fused: bool) -> None:
    for row in range(len(SENTENCES)):
        text, batch = TorchParts(model), TorchParts(model)
        run_text(text, tokens.rows([row]), POLICY, layers=LAYERS, fused=fused)
        run(batch, tokens.rows([row]), POLICY, fused=fused)
        assert [call.part for call in text.calls] == [call.part for call in batch.calls]


def test_deadline_ends_text(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    policy = replace(NO_SKIP, exit_threshold=0.0, deadline_ms=1e-6)
    outcome = run_text(TorchParts(model), tokens.rows([0]), policy, layers=LAYERS)
    assert outcome.trace.decisions() == ((1,), (), 1)
    assert outcome.seconds > 0.0
