"""engine.single_graph: one graph decides as separate parts do, one text a call, and refuses what it cannot decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from smartbert_runtime import Policy, Prediction, SmartBert
from smartbert_runtime.decisions.rules import softmax
from smartbert_runtime.engine.single_graph import check_single_graph_policy, run_single_graph
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.package.part_names import MODEL
from smartbert_runtime.tokenizer import Tokens
from tests.conftest import LABELS, LAYERS, SENTENCES

POLICY = Policy(exit_threshold=0.5)
POLICIES = [
    POLICY,
    replace(POLICY, no_skip=True),
    replace(POLICY, no_exit=True),
    POLICY.at_full_depth(),
    Policy(exit_threshold=0.8, skip_threshold=0.2),
    Policy(exit_threshold=0.0),
    Policy(exit_threshold=0.5, skip_threshold=1.0),
    Policy(exit_threshold=1.0, skip_threshold=0.0),
]


@pytest.fixture(scope="module")
def single(layouts_dir: Path) -> SmartBert:
    return SmartBert.load(layouts_dir, layout="single")


@pytest.fixture(scope="module")
def separate(layouts_dir: Path) -> SmartBert:
    return SmartBert.load(layouts_dir, layout="separate")


def assert_same(found: list[Prediction], expected: list[Prediction]) -> None:
    assert [one.label for one in found] == [other.label for other in expected]
    assert [one.exit_layer for one in found] == [other.exit_layer for other in expected]
    assert [one.layers_run for one in found] == [other.layers_run for other in expected]
    assert [one.layers_skipped for one in found] == [other.layers_skipped for other in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.trace.logits_c, other.trace.logits_c, rtol=0, atol=2e-5)


@pytest.mark.parametrize("policy", POLICIES)
def test_single_matches_separate(single: SmartBert, separate: SmartBert, policy: Policy) -> None:
    assert (single.sessions.variant.name, separate.sessions.variant.name) == ("single-fp32", "separate-fp32")
    assert_same(single.classify(SENTENCES, policy=policy), separate.classify(SENTENCES, policy=policy))


def test_sentences_take_many_paths(single: SmartBert) -> None:
    # Otherwise the test above would show little.
    found = single.classify(SENTENCES)
    assert {one.exit_layer for one in found} >= {2, 3, 4}
    assert {layer for one in found for layer in one.layers_skipped} == {1, 2, 3, 4}


def test_pairs_match_separate(single: SmartBert, separate: SmartBert) -> None:
    seconds = SENTENCES[7:] + SENTENCES[:7]
    assert_same(single.classify(SENTENCES, text_pairs=seconds), separate.classify(SENTENCES, text_pairs=seconds))


def test_no_skip_runs_layers_to_exit(single: SmartBert) -> None:
    for one in single.classify(SENTENCES, policy=replace(POLICY, no_skip=True)):
        assert (one.layers_run, one.layers_skipped) == (tuple(range(1, one.exit_layer + 1)), ())


def test_no_exit_answers_last(single: SmartBert) -> None:
    for one in single.classify(SENTENCES, policy=replace(POLICY, no_exit=True)):
        assert one.exit_layer == LAYERS
        assert sorted(one.layers_run + one.layers_skipped) == [1, 2, 3, 4]


def test_no_skip_no_exit_override_thresholds(single: SmartBert) -> None:
    eager = Policy(skip_threshold=0.0, exit_threshold=1.0, no_skip=True, no_exit=True)
    assert {one.layers_run for one in single.classify(SENTENCES, policy=eager)} == {(1, 2, 3, 4)}


def test_negative_threshold_is_packaged_one(single: SmartBert) -> None:
    # What a caller in another language passes who does not read policy.json.
    for row, expected in enumerate(single.classify(SENTENCES)):
        feeds: dict[str, NDArray[np.generic]] = dict(single.tokenizer.encode([SENTENCES[row]]).feeds())
        feeds |= {name: np.asarray(np.float32(-1.0)) for name in ("skip_threshold", "exit_threshold")}
        logits_1c, exit_layer, layers_run = single.sessions.run(MODEL, feeds)
        assert int(exit_layer) == expected.exit_layer
        assert tuple((np.flatnonzero(layers_run) + 1).tolist()) == expected.layers_run
        np.testing.assert_array_equal(logits_1c[0], expected.trace.logits_c)


def test_trace_has_no_evaluated_numbers(single: SmartBert) -> None:
    (one,) = single.classify(["Down, down, down."])
    assert (one.layers_run, one.layers_skipped, one.exit_layer) == ((3,), (1, 2, 4), 4)
    assert np.isnan(one.trace.skip_logit_l).all() and np.isnan(one.trace.uncertainty_l).all()
    assert len(one.trace.skip_logit_l) == len(one.trace.uncertainty_l) == LAYERS
    assert [(step.layer, step.skipped, step.uncertainty) for step in one.trace.steps()] == [
        (1, True, None),
        (2, True, None),
        (3, False, None),
        (4, True, None),
    ]
    assert list(one.probabilities.values()) == pytest.approx(softmax(one.trace.logits_c).tolist())


def test_one_graph_is_loaded(layouts_dir: Path) -> None:
    model = SmartBert.load(layouts_dir, layout="single", preload=True)
    assert list(model.sessions.placements()) == [MODEL]


def test_max_layers_refused_before_loading(layouts_dir: Path) -> None:
    model = SmartBert.load(layouts_dir, layout="single")
    with pytest.raises(ConfigError, match=r"'single' .* knows no max_layers") as caught:
        model.classify(SENTENCES, policy=replace(POLICY, max_layers=3))
    assert "separate" in caught.value.hint and "fused" in caught.value.hint
    assert model.sessions.placements() == {}
    check_single_graph_policy(POLICY)


# What is computed


class Recorder:
    """`Parts` that record their feeds and always return the same decisions: layers 1 and 3 run, exit at 3."""

    def __init__(self) -> None:
        self.fed: list[Mapping[str, NDArray[np.generic]]] = []

    def run(self, part: str, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        assert part == MODEL
        self.fed.append(feeds)
        logits = np.zeros((1, len(LABELS)), np.float32)
        logits[0, len(self.fed) % len(LABELS)] = 1.0
        return [logits, np.asarray(3, np.float32), np.array([1, 0, 1, 0], np.float32)]


def encode(single: SmartBert, *rows: int) -> Tokens:
    return single.tokenizer.encode([SENTENCES[row] for row in rows])


def test_one_unpadded_call_per_row(single: SmartBert) -> None:
    parts, tokens = Recorder(), encode(single, 0, 14, 3)
    outcomes = run_single_graph(parts, tokens, POLICY)
    lengths = tokens.attention_mask_bs.sum(axis=1)
    assert len(set(lengths.tolist())) == 3
    assert [feeds["input_ids"].shape for feeds in parts.fed] == [(1, length) for length in lengths]
    for row, (feeds, outcome) in enumerate(zip(parts.fed, outcomes, strict=True)):
        np.testing.assert_array_equal(feeds["input_ids"][0], tokens.input_ids_bs[row, : lengths[row]])
        assert feeds["attention_mask"].all()
        assert outcome.trace.decisions() == ((1, 3), (2,), 3)  # layer 4 was never reached
        assert int(outcome.trace.logits_c.argmax()) == (row + 1) % len(LABELS)
    seconds = [outcome.seconds for outcome in outcomes]
    assert 0.0 < seconds[0] < seconds[1] < seconds[2]


@pytest.mark.parametrize(
    ("policy", "skip_threshold", "exit_threshold"),
    [
        (Policy(skip_threshold=0.25, exit_threshold=0.75), 0.25, 0.75),
        (Policy(skip_threshold=0.25, exit_threshold=0.75, no_skip=True), 1.0, 0.75),
        (Policy(skip_threshold=0.25, exit_threshold=0.75, no_exit=True), 0.25, 0.0),
    ],
)
def test_thresholds_are_scalar_feeds(
    single: SmartBert, policy: Policy, skip_threshold: float, exit_threshold: float
) -> None:
    parts = Recorder()
    run_single_graph(parts, encode(single, 0), policy)
    (feeds,) = parts.fed
    given = feeds["skip_threshold"], feeds["exit_threshold"]
    assert {array.shape for array in given} == {()}
    assert {array.dtype for array in given} == {np.dtype(np.float32)}
    assert [float(array) for array in given] == [skip_threshold, exit_threshold]
