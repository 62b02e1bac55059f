"""engine: over the torch model's own parts, every text goes its own way, and no row is computed that need not be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.batch import run_batch
from smartbert_runtime.engine.parts import Outcome
from smartbert_runtime.tokenizer import Tokens
from smartbert_runtime.trace import Trace
from tests.conftest import LABELS, LAYERS, SENTENCES
from tests.runtime.engine.torch_parts import Call, TorchParts, encode, padded

# Both sides run the same torch kernels; only the batch's shape differs.
LOGIT_TOLERANCE = 2e-5

POLICY = Policy(exit_threshold=0.5)
POLICIES = [
    POLICY,
    Policy(exit_threshold=0.5, no_skip=True),
    Policy(exit_threshold=0.5, no_exit=True),
    Policy(no_skip=True, no_exit=True),
    Policy(exit_threshold=0.8, skip_threshold=0.2),
    Policy(rule="max-probability", exit_threshold=0.5),
    Policy(rule="patience", patience=1),
    Policy(rule="patience", patience=1, no_skip=True),
    Policy(rule="confident-patience", patience=2, exit_threshold=0.7),
    Policy(exit_thresholds=(0.0, 0.3, 0.6, 0.0)),
]


def run(parts: TorchParts, tokens: Tokens, policy: Policy, *, fused: bool = False) -> list[Outcome]:
    return run_batch(parts, tokens, policy, layers=LAYERS, classes=len(LABELS), fused=fused)


def traces(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy, *, fused: bool = False
) -> list[Trace]:
    return [outcome.trace for outcome in run(TorchParts(model), tokens, policy, fused=fused)]


def assert_same(found: Sequence[Trace], expected: Sequence[Trace]) -> None:
    """Equal decisions, and the same numbers asked, up to rounding."""
    assert [trace.decisions() for trace in found] == [trace.decisions() for trace in expected]
    for one, other in zip(found, expected, strict=True):
        for name in ("logits_c", "skip_logit_l", "entropy_l"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0, atol=LOGIT_TOLERANCE)


@pytest.fixture(scope="module")
def tokens() -> Tokens:
    return encode(SENTENCES)


@pytest.mark.parametrize("policy", POLICIES)
def test_each_text_alone_goes_the_way_of_the_reference(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy
) -> None:
    alone = [trace for row in range(len(SENTENCES)) for trace in traces(model, tokens.rows([row]), policy)]
    assert_same(alone, trace_rows(model, tokens, policy))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_batch_gives_each_text_the_way_it_goes_alone(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy
) -> None:
    expected = trace_rows(model, tokens, policy)
    assert_same(traces(model, tokens, policy), expected)
    backwards = list(range(len(SENTENCES)))[::-1]
    assert_same(traces(model, tokens.rows(backwards), policy), expected[::-1])


def test_the_sentences_take_many_ways(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    # Else the tests around this one would show little.
    ways = {trace.decisions() for trace in trace_rows(model, tokens, POLICY)}
    assert len(ways) >= 6
    assert {exit_layer for _, _, exit_layer in ways} >= {2, 3, 4}
    assert {layer for _, skipped, _ in ways for layer in skipped} == {1, 2, 3, 4}


@pytest.mark.parametrize("fill", [0, 7])
def test_extra_padding_changes_nothing_whatever_is_in_it(
    model: SmartBertForSequenceClassification, tokens: Tokens, fill: int
) -> None:
    expected = trace_rows(model, tokens, POLICY)
    assert_same(traces(model, padded(tokens, 8, fill), POLICY), expected)
    assert_same(traces(model, padded(tokens.rows([0]), 20, fill), POLICY), expected[:1])


def test_the_last_head_answers_when_none_fired(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    for trace in traces(model, tokens, Policy(exit_threshold=0.0)):
        assert trace.exit_layer == LAYERS
        assert sorted(trace.layers_run + trace.layers_skipped) == [1, 2, 3, 4]
        assert np.isnan(trace.entropy_l[-1])  # nothing is left to decide at the last layer


def test_the_last_head_answers_when_the_last_layer_was_skipped(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    # "Down, down, down." skips 1, 2 and 4.
    (trace,) = traces(model, tokens.rows([0]), POLICY)
    assert trace.decisions() == ((3,), (1, 2, 4), 4)
    state, mask = state_after(TorchParts(model), tokens.rows([0]), [3])
    logits = TorchParts(model).run("exit_04", {"hidden": state, "mask": mask})[0][0]
    np.testing.assert_allclose(trace.logits_c, logits, rtol=0, atol=LOGIT_TOLERANCE)


def test_skipping_everything_asks_the_last_head_about_the_embeddings(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    parts = TorchParts(model)
    (outcome,) = run(parts, tokens.rows([0]), Policy(skip_threshold=0.0, exit_threshold=1.0))
    assert outcome.trace.decisions() == ((), (1, 2, 3, 4), 4)
    assert [call.part for call in parts.calls] == ["embeddings", "gate_01", "gate_02", "gate_03", "gate_04", "exit_04"]


# max_layers


@pytest.mark.parametrize("limit", [1, 2, 3, 4])
@pytest.mark.parametrize("policy", POLICIES[:4])
def test_max_layers_counts_layers_run_and_the_last_one_run_answers(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy, limit: int
) -> None:
    limited = Policy(
        exit_threshold=policy.exit_threshold, no_skip=policy.no_skip, no_exit=policy.no_exit, max_layers=limit
    )
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


def test_without_exits_only_texts_that_max_layers_ends_are_asked(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    parts = TorchParts(model)
    run(parts, tokens, Policy(no_skip=True, no_exit=True, max_layers=2))
    assert [call.part for call in parts.calls] == ["embeddings", "layer_01", "layer_02", "exit_02"]


# deadline_ms


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("no_exit", [False, True])
def test_once_time_is_up_the_layer_that_is_being_run_answers(
    model: SmartBertForSequenceClassification, tokens: Tokens, no_exit: bool, fused: bool
) -> None:
    late = Policy(exit_threshold=0.5, no_exit=no_exit, deadline_ms=1.0)
    found = [
        outcome.trace
        for outcome in run_batch(
            TorchParts(model), tokens, late, layers=LAYERS, classes=len(LABELS), fused=fused, since=-1.0
        )
    ]
    # As with one layer at most: a text that skips all of them has nothing to answer with before the end.
    assert_same(found, traces(model, tokens, Policy(exit_threshold=0.5, no_exit=no_exit, max_layers=1)))


def test_while_there_is_time_a_deadline_changes_nothing(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    assert_same(traces(model, tokens, replace(POLICY, deadline_ms=1e6)), traces(model, tokens, POLICY))


def test_a_deadline_that_passes_on_the_way_ends_there(
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
def test_a_text_that_skips_the_layer_during_which_time_runs_out_answers_after_the_next_it_runs(
    model: SmartBertForSequenceClassification, tokens: Tokens, monkeypatch: pytest.MonkeyPatch, fused: bool
) -> None:
    free = Policy(no_exit=True)
    ways = [trace.layers_run for trace in trace_rows(model, tokens, free)]
    # Some run layer 1 and skip 2, others run 2: these are what time runs out for.
    assert {way[:2] for way in ways} >= {(1, 3), (1, 2)}
    parts = TorchParts(model)
    monkeypatch.setattr(
        "smartbert_runtime.engine.batch.time.perf_counter",
        lambda: float(sum(call.part in ("layer_02", "block_02") for call in parts.calls)),
    )
    found = run(parts, tokens, replace(free, deadline_ms=500.0), fused=fused)
    for outcome, way in zip(found, ways, strict=True):
        until = next((number for number, layer in enumerate(way, start=1) if layer >= 2), len(way))
        assert outcome.trace.layers_run == way[:until]


# What is computed


def test_every_part_is_given_exactly_the_rows_that_want_it(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    parts = TorchParts(model)
    found = [outcome.trace for outcome in run(parts, tokens, POLICY)]
    assert parts.rows("embeddings") == [len(SENTENCES)]
    for layer in range(1, LAYERS + 1):
        ran = sum(layer in trace.layers_run for trace in found)
        reached = sum(layer <= trace.exit_layer for trace in found)
        assert parts.rows(f"layer_{layer:02d}") == [ran]
        assert parts.rows(f"gate_{layer:02d}") == [reached]
        # At the last layer, those that skipped it are asked as well.
        assert parts.rows(f"exit_{layer:02d}") == [reached if layer == LAYERS else ran]


def test_a_text_alone_runs_nothing_that_it_skips_or_leaves_behind(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    parts = TorchParts(model)
    run(parts, tokens.rows([0]), POLICY)
    asked = ["embeddings", "gate_01", "gate_02", "gate_03", "layer_03", "exit_03", "gate_04", "exit_04"]
    assert [call.part for call in parts.calls] == asked
    parts = TorchParts(model)
    (outcome,) = run(parts, tokens.rows([16]), POLICY)
    assert outcome.trace.decisions() == ((1, 2), (), 2)
    assert parts.calls[-1].part == "exit_02"


def test_without_gates_or_exits_none_is_asked(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    parts = TorchParts(model)
    run(parts, tokens, POLICY.at_full_depth())
    assert [call.part for call in parts.calls] == ["embeddings", *(f"layer_{n:02d}" for n in range(1, 5)), "exit_04"]
    assert {call.rows for call in parts.calls} == {len(SENTENCES)}


def test_padding_goes_when_the_rows_that_needed_it_have_left(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    # "Twinkle, twinkle" (17 tokens) answers at layer 3, "Would the fall" (11) runs all four.
    parts = TorchParts(model)
    long, short = (outcome.trace for outcome in run(parts, tokens.rows([22, 5]), POLICY))
    assert (long.decisions(), short.decisions()) == (((1, 2, 3), (), 3), ((1, 2, 3, 4), (), 4))
    assert Call("exit_03", 2, 17) in parts.calls
    assert parts.calls[-3:] == [Call("gate_04", 1, 11), Call("layer_04", 1, 11), Call("exit_04", 1, 11)]


def test_the_times_of_answers_follow_the_layers_that_gave_them(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    outcomes = sorted(run(TorchParts(model), tokens, POLICY), key=lambda outcome: outcome.trace.exit_layer)
    seconds = [outcome.seconds for outcome in outcomes]
    assert seconds == sorted(seconds)
    assert 0.0 < seconds[0] < seconds[-1]


# fused: a block is a layer, its exit head and the next gate


@pytest.mark.parametrize("limit", [None, 1, 2, 3, 4])
@pytest.mark.parametrize("policy", POLICIES)
def test_blocks_decide_as_separate_parts_do(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy, limit: int | None
) -> None:
    limited = replace(policy, max_layers=limit)
    expected = traces(model, tokens, limited)
    assert_same(traces(model, tokens, limited, fused=True), expected)
    for row in range(len(SENTENCES)):
        assert_same(traces(model, tokens.rows([row]), limited, fused=True), expected[row : row + 1])


@pytest.mark.parametrize("policy", [POLICY, POLICIES[2], POLICIES[4]])
def test_a_gate_is_asked_by_itself_only_about_rows_that_skipped_the_layer_before(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy
) -> None:
    parts = TorchParts(model)
    found = [outcome.trace for outcome in run(parts, tokens, policy, fused=True)]
    assert parts.rows("gate_01") == [len(SENTENCES)]
    skipped = [sum(layer in trace.layers_skipped for trace in found) for layer in range(1, LAYERS)]
    assert 0 < sum(skipped) < len(skipped) * len(SENTENCES)
    for layer, silent in enumerate(skipped, start=2):
        assert parts.rows(f"gate_{layer:02d}") == [silent] * bool(silent)


def test_a_gate_of_which_every_row_was_told_is_not_asked(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    ran = [row for row, trace in enumerate(traces(model, tokens, POLICY)) if trace.layers_run[:2] == (1, 2)]
    assert len(ran) >= 2
    parts = TorchParts(model)
    run(parts, tokens.rows(ran), POLICY, fused=True)
    assert parts.rows("gate_01") == [len(ran)]
    assert parts.rows("gate_02") == parts.rows("gate_03") == []


@pytest.mark.parametrize("policy", POLICIES)
def test_the_last_head_is_asked_by_itself_only_for_rows_that_skipped_the_last_layer(
    model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy
) -> None:
    parts = TorchParts(model)
    found = [outcome.trace for outcome in run(parts, tokens, policy, fused=True)]
    skipped = sum(LAYERS in trace.layers_skipped for trace in found)
    assert (skipped > 0) == (not policy.no_skip)
    assert [(call.part, call.rows) for call in parts.calls if call.part.startswith("exit")] == [
        ("exit_04", skipped)
    ] * bool(skipped)


def test_every_block_is_given_exactly_the_rows_that_run_it(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    parts = TorchParts(model)
    found = [outcome.trace for outcome in run(parts, tokens, POLICY, fused=True)]
    for layer in range(1, LAYERS + 1):
        assert parts.rows(f"block_{layer:02d}") == [sum(layer in trace.layers_run for trace in found)]
    assert not [call for call in parts.calls if call.part.startswith("layer")]


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        (0, ["gate_01", "gate_02", "gate_03", "block_03", "exit_04"]),  # skips 1, 2 and 4
        (16, ["gate_01", "block_01", "block_02"]),  # runs 1 and 2, and answers
    ],
)
def test_a_text_alone_runs_one_block_a_layer_and_asks_only_what_no_block_told(
    model: SmartBertForSequenceClassification, tokens: Tokens, row: int, asked: list[str]
) -> None:
    parts = TorchParts(model)
    run(parts, tokens.rows([row]), POLICY, fused=True)
    assert [call.part for call in parts.calls] == ["embeddings", *asked]


def test_skipping_everything_runs_no_block(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    parts = TorchParts(model)
    run(parts, tokens, Policy(skip_threshold=0.0, exit_threshold=1.0), fused=True)
    assert [call.part for call in parts.calls] == ["embeddings", "gate_01", "gate_02", "gate_03", "gate_04", "exit_04"]


@pytest.mark.parametrize("exits", [True, False])
def test_without_gates_blocks_alone_are_run(
    model: SmartBertForSequenceClassification, tokens: Tokens, exits: bool
) -> None:
    parts = TorchParts(model)
    run(parts, tokens, Policy(exit_threshold=0.5, no_skip=True, no_exit=not exits), fused=True)
    assert [call.part for call in parts.calls] == ["embeddings", *(f"block_{n:02d}" for n in range(1, LAYERS + 1))]


def test_max_layers_takes_the_answer_that_the_last_block_told(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    parts = TorchParts(model)
    run(parts, tokens, Policy(no_skip=True, no_exit=True, max_layers=2), fused=True)
    assert [call.part for call in parts.calls] == ["embeddings", "block_01", "block_02"]


def test_blocks_too_lose_the_padding_that_only_leavers_needed(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
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
