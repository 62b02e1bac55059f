"""engine.batch: over the torch model's own parts, each row is decided as by the oracle, and nothing is run in vain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.batch import run_batch
from smartbert_runtime.tokenizer import Tokens
from tests.conftest import LABELS, LAYERS, SENTENCES
from tests.runtime.engine.engine_cases import (
    EAGER,
    FULL_DEPTH,
    LOGIT_TOLERANCE,
    NO_EXIT,
    NO_SKIP,
    POLICIES,
    POLICY,
    assert_same,
    run,
    traces,
)
from tests.runtime.engine.torch_parts import Call, TorchParts, padded


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_batch_matches_oracle(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy, fused: bool
) -> None:
    expected = trace_rows(model, tokens, policy)
    assert_same(traces(model, tokens, policy, fused=fused), expected)
    backwards = list(range(len(SENTENCES)))[::-1]
    assert_same(traces(model, tokens.rows(backwards), policy, fused=fused), expected[::-1])


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("policy", [POLICY, EAGER], ids=repr)
def test_batch_of_one_matches_oracle(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy, fused: bool
) -> None:
    rows = range(len(SENTENCES))
    found = [trace for row in rows for trace in traces(model, tokens.rows([row]), policy, fused=fused)]
    assert_same(found, trace_rows(model, tokens, policy))


def test_sentences_take_many_paths(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    # Otherwise the tests around this one would show little.
    paths = {trace.decisions() for trace in trace_rows(model, tokens, POLICY)}
    assert len(paths) >= 6
    assert {exit_layer for _, _, exit_layer in paths} >= {2, 3, 4}
    assert {layer for _, skipped, _ in paths for layer in skipped} == {1, 2, 3, 4}


@pytest.mark.parametrize("fill", [0, 7])
def test_extra_padding_changes_nothing(model: SmartBertForSequenceClassification, tokens: Tokens, fill: int) -> None:
    expected = trace_rows(model, tokens, POLICY)
    assert_same(traces(model, padded(tokens, 8, fill), POLICY), expected)
    assert_same(traces(model, padded(tokens.rows([0]), 20, fill), POLICY), expected[:1])


def test_last_head_answers_when_none_fired(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    for trace in traces(model, tokens, Policy(exit_threshold=0.0)):
        assert trace.exit_layer == LAYERS
        assert sorted(trace.layers_run + trace.layers_skipped) == [1, 2, 3, 4]
        assert np.isnan(trace.uncertainty_l[-1])  # nothing is left to decide at the last layer


def test_last_head_answers_skipped_layer(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    # "Down, down, down." skips 1, 2 and 4.
    (trace,) = traces(model, tokens.rows([0]), POLICY)
    assert trace.decisions() == ((3,), (1, 2, 4), 4)
    state, mask = state_after(TorchParts(model), tokens.rows([0]), [3])
    logits = TorchParts(model).run("exit_04", {"hidden": state, "mask": mask})[0][0]
    np.testing.assert_allclose(trace.logits_c, logits, rtol=0, atol=LOGIT_TOLERANCE)


def test_all_layers_skipped(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    parts = TorchParts(model)
    (outcome,) = run(parts, tokens.rows([0]), Policy(skip_threshold=0.0, exit_threshold=1.0))
    assert outcome.trace.decisions() == ((), (1, 2, 3, 4), 4)
    assert [call.part for call in parts.calls] == ["embeddings", "gate_01", "gate_02", "gate_03", "gate_04", "exit_04"]


# max_layers


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
@pytest.mark.parametrize("policy", [POLICY, NO_SKIP, NO_EXIT, FULL_DEPTH], ids=repr)
def test_max_layers_ends_rows(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy, limit: int
) -> None:
    limited = replace(policy, max_layers=limit)
    cut = 0
    pairs = zip(traces(model, tokens, limited), trace_rows(model, tokens, policy), strict=True)
    for row, (found, free) in enumerate(pairs):
        if len(free.layers_run) < limit or free.exit_layer == free.layers_run[limit - 1]:
            assert_same([found], [free])
            continue
        cut += 1
        last = free.layers_run[limit - 1]
        assert found.layers_run == free.layers_run[:limit]
        assert found.layers_skipped == tuple(layer for layer in free.layers_skipped if layer < last)
        assert found.exit_layer == last
        state, mask = state_after(TorchParts(model), tokens.rows([row]), found.layers_run)
        logits = TorchParts(model).run(f"exit_{last:02d}", {"hidden": state, "mask": mask})[0][0]
        np.testing.assert_allclose(found.logits_c, logits, rtol=0, atol=LOGIT_TOLERANCE)
    assert cut > 0 or limit == LAYERS


def test_max_layers_without_exits(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    parts = TorchParts(model)
    run(parts, tokens, Policy(no_skip=True, no_exit=True, max_layers=2))
    assert [call.part for call in parts.calls] == ["embeddings", "layer_01", "layer_02", "exit_02"]


# deadline_ms


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("no_exit", [False, True])
def test_passed_deadline_ends_rows(
    model: SmartBertForSequenceClassification, tokens: Tokens, no_exit: bool, fused: bool
) -> None:
    late = Policy(exit_threshold=0.5, no_exit=no_exit, deadline_ms=1.0)
    found = [
        outcome.trace
        for outcome in run_batch(
            TorchParts(model), tokens, late, layers=LAYERS, classes=len(LABELS), fused=fused, since=-1.0
        )
    ]
    # As with max_layers=1: a text that skips every layer has no answer before the end.
    assert_same(found, traces(model, tokens, Policy(exit_threshold=0.5, no_exit=no_exit, max_layers=1)))


def test_distant_deadline_changes_nothing(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    assert_same(traces(model, tokens, replace(POLICY, deadline_ms=1e6)), traces(model, tokens, POLICY))


def test_deadline_passes_midway(
    model: SmartBertForSequenceClassification, tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = TorchParts(model)
    # A clock that moves by 1 s with every layer run.
    monkeypatch.setattr(
        "smartbert_runtime.engine.batch.time.perf_counter",
        lambda: float(sum(call.part.startswith("layer") for call in parts.calls)),
    )
    found = run(parts, tokens, Policy(no_skip=True, no_exit=True, deadline_ms=1500.0))
    assert {outcome.trace.layers_run for outcome in found} == {(1, 2)}


@pytest.mark.parametrize("fused", [False, True])
def test_deadline_during_skipped_layer(
    model: SmartBertForSequenceClassification, tokens: Tokens, monkeypatch: pytest.MonkeyPatch, fused: bool
) -> None:
    free = Policy(no_exit=True)
    paths = [trace.layers_run for trace in trace_rows(model, tokens, free)]
    # Some run layer 1 and skip 2, others run 2: during layer 2 the deadline passes.
    assert {path[:2] for path in paths} >= {(1, 3), (1, 2)}
    parts = TorchParts(model)
    monkeypatch.setattr(
        "smartbert_runtime.engine.batch.time.perf_counter",
        lambda: float(sum(call.part in ("layer_02", "block_02") for call in parts.calls)),
    )
    found = run(parts, tokens, replace(free, deadline_ms=500.0), fused=fused)
    for outcome, path in zip(found, paths, strict=True):
        until = next((number for number, layer in enumerate(path, start=1) if layer >= 2), len(path))
        assert outcome.trace.layers_run == path[:until]


# What is computed


def test_parts_get_only_needed_rows(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    parts = TorchParts(model)
    found = [outcome.trace for outcome in run(parts, tokens, POLICY)]
    assert parts.rows("embeddings") == [len(SENTENCES)]
    for layer in range(1, LAYERS + 1):
        ran = sum(layer in trace.layers_run for trace in found)
        reached = sum(layer <= trace.exit_layer for trace in found)
        assert parts.rows(f"layer_{layer:02d}") == [ran]
        assert parts.rows(f"gate_{layer:02d}") == [reached]
        # At the last layer, the head runs for rows that skipped it as well.
        assert parts.rows(f"exit_{layer:02d}") == [reached if layer == LAYERS else ran]


def test_parts_run_for_one_text(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    parts = TorchParts(model)
    run(parts, tokens.rows([0]), POLICY)
    expected = ["embeddings", "gate_01", "gate_02", "gate_03", "layer_03", "exit_03", "gate_04", "exit_04"]
    assert [call.part for call in parts.calls] == expected
    parts = TorchParts(model)
    (outcome,) = run(parts, tokens.rows([16]), POLICY)
    assert outcome.trace.decisions() == ((1, 2), (), 2)
    assert parts.calls[-1].part == "exit_02"


def test_full_depth_runs_no_heads(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    parts = TorchParts(model)
    run(parts, tokens, POLICY.at_full_depth())
    assert [call.part for call in parts.calls] == ["embeddings", *(f"layer_{n:02d}" for n in range(1, 5)), "exit_04"]
    assert {call.rows for call in parts.calls} == {len(SENTENCES)}


def test_padding_leaves_with_rows(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    # "Twinkle, twinkle" (17 tokens) answers at layer 3, "Would the fall" (11) runs all four.
    parts = TorchParts(model)
    long, short = (outcome.trace for outcome in run(parts, tokens.rows([22, 5]), POLICY))
    assert (long.decisions(), short.decisions()) == (((1, 2, 3), (), 3), ((1, 2, 3, 4), (), 4))
    assert Call("exit_03", 2, 17) in parts.calls
    assert parts.calls[-3:] == [Call("gate_04", 1, 11), Call("layer_04", 1, 11), Call("exit_04", 1, 11)]


def test_answer_times_follow_exit_layers(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    outcomes = sorted(run(TorchParts(model), tokens, POLICY), key=lambda outcome: outcome.trace.exit_layer)
    seconds = [outcome.seconds for outcome in outcomes]
    assert seconds == sorted(seconds)
    assert 0.0 < seconds[0] < seconds[-1]


# fused: a block is a layer, its exit head and the next gate


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
@pytest.mark.parametrize("policy", [POLICY, NO_SKIP, NO_EXIT, FULL_DEPTH], ids=repr)
def test_blocks_obey_max_layers(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy, limit: int
) -> None:
    limited = replace(policy, max_layers=limit)
    assert_same(traces(model, tokens, limited, fused=True), traces(model, tokens, limited))


@pytest.mark.parametrize("policy", [POLICY, NO_EXIT, EAGER])
def test_separate_gate_after_skip(model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy) -> None:
    parts = TorchParts(model)
    found = [outcome.trace for outcome in run(parts, tokens, policy, fused=True)]
    assert parts.rows("gate_01") == [len(SENTENCES)]
    skipped = [sum(layer in trace.layers_skipped for trace in found) for layer in range(1, LAYERS)]
    assert 0 < sum(skipped) < len(skipped) * len(SENTENCES)
    for layer, rows in enumerate(skipped, start=2):
        assert parts.rows(f"gate_{layer:02d}") == [rows] * bool(rows)


def test_no_separate_gate_after_block(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    ran = [row for row, trace in enumerate(traces(model, tokens, POLICY)) if trace.layers_run[:2] == (1, 2)]
    assert len(ran) >= 2
    parts = TorchParts(model)
    run(parts, tokens.rows(ran), POLICY, fused=True)
    assert parts.rows("gate_01") == [len(ran)]
    assert parts.rows("gate_02") == parts.rows("gate_03") == []


@pytest.mark.parametrize("policy", [POLICY, NO_SKIP, NO_EXIT, EAGER], ids=repr)
def test_separate_last_head_after_skip(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy
) -> None:
    parts = TorchParts(model)
    found = [outcome.trace for outcome in run(parts, tokens, policy, fused=True)]
    skipped = sum(LAYERS in trace.layers_skipped for trace in found)
    assert (skipped > 0) == (not policy.no_skip)
    assert [(call.part, call.rows) for call in parts.calls if call.part.startswith("exit")] == [
        ("exit_04", skipped)
    ] * bool(skipped)


def test_blocks_get_only_needed_rows(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    parts = TorchParts(model)
    found = [outcome.trace for outcome in run(parts, tokens, POLICY, fused=True)]
    for layer in range(1, LAYERS + 1):
        assert parts.rows(f"block_{layer:02d}") == [sum(layer in trace.layers_run for trace in found)]
    assert not [call for call in parts.calls if call.part.startswith("layer")]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (0, ["gate_01", "gate_02", "gate_03", "block_03", "exit_04"]),  # skips 1, 2 and 4
        (16, ["gate_01", "block_01", "block_02"]),  # runs 1 and 2, and answers
    ],
)
def test_blocks_run_for_one_text(
    model: SmartBertForSequenceClassification, tokens: Tokens, row: int, expected: list[str]
) -> None:
    parts = TorchParts(model)
    run(parts, tokens.rows([row]), POLICY, fused=True)
    assert [call.part for call in parts.calls] == ["embeddings", *expected]


def test_all_blocks_skipped(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    parts = TorchParts(model)
    run(parts, tokens, Policy(skip_threshold=0.0, exit_threshold=1.0), fused=True)
    assert [call.part for call in parts.calls] == ["embeddings", "gate_01", "gate_02", "gate_03", "gate_04", "exit_04"]


@pytest.mark.parametrize("exits", [True, False])
def test_blocks_only_without_gates(model: SmartBertForSequenceClassification, tokens: Tokens, exits: bool) -> None:
    parts = TorchParts(model)
    run(parts, tokens, Policy(exit_threshold=0.5, no_skip=True, no_exit=not exits), fused=True)
    assert [call.part for call in parts.calls] == ["embeddings", *(f"block_{n:02d}" for n in range(1, LAYERS + 1))]


def test_max_layers_uses_block_logits(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    parts = TorchParts(model)
    run(parts, tokens, Policy(no_skip=True, no_exit=True, max_layers=2), fused=True)
    assert [call.part for call in parts.calls] == ["embeddings", "block_01", "block_02"]


def test_padding_leaves_with_rows_fused(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    # "Twinkle, twinkle" (17 tokens) answers at layer 3, "Would the fall" (11) runs all four.
    parts = TorchParts(model)
    run(parts, tokens.rows([22, 5]), POLICY, fused=True)
    assert parts.calls[-2:] == [Call("block_03", 2, 17), Call("block_04", 1, 11)]


def state_after(
    parts: TorchParts, tokens: Tokens, layers_run: Iterable[int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Hidden state and mask after just these layers."""
    hidden, mask = parts.run("embeddings", tokens.feeds())
    for layer in layers_run:
        (hidden,) = parts.run(f"layer_{layer:02d}", {"hidden": hidden, "mask": mask})
    return hidden, mask
