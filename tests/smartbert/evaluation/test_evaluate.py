"""evaluate.py on the tiny model: every figure and curve against the reference implementation, text by text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset

from smartbert.data.splits import Split
from smartbert.evaluation.curves import EXIT_THRESHOLDS, CurvePoint
from smartbert.evaluation.evaluate import Evaluation, evaluate
from smartbert.evaluation.macs import MacCounter, plain_macs
from smartbert.evaluation.recording import token_counts, tokenize
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import PlainClassifier
from smartbert.reference import trace_one
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.trace import Trace
from tests.conftest import LABELS, LAYERS, SENTENCES, make_tokenizer
from tests.smartbert.conftest import with_config

TEXTS = len(SENTENCES)
LABEL_IDS = tuple(row % 3 for row in range(TEXTS))
POLICY = Policy(skip_threshold=0.5, exit_threshold=0.5)
SKIP_THRESHOLDS = (0.2, 0.7)


@pytest.fixture(scope="module")
def split() -> Dataset:
    """SENTENCES, tokenized; the labels are right for about a third of the answers."""
    return tokenize(Split(texts=SENTENCES, pairs=None, label_ids=LABEL_IDS), make_tokenizer(), 24)


@pytest.fixture(scope="module")
def report(model: SmartBertForSequenceClassification, split: Dataset) -> Evaluation:
    return evaluate(model, split, make_tokenizer(), LABELS, POLICY, skip_thresholds=SKIP_THRESHOLDS, batch_size=5)


def _traces(model: SmartBertForSequenceClassification, split: Dataset, policy: Policy) -> list[Trace]:
    """Each text alone, by the inference rule written out; no decision so near that a batch could turn it."""
    traces = [trace_one(model, ids, [0] * len(ids), policy) for ids in split["input_ids"]]
    for trace in traces:
        assert trace.margin(policy) > 1e-5
    return traces


def _accuracy(traces: list[Trace]) -> float:
    return float(np.mean([trace.logits_c.argmax() == label for trace, label in zip(traces, LABEL_IDS, strict=True)]))


def _layers_run(traces: list[Trace]) -> float:
    return float(np.mean([len(trace.layers_run) for trace in traces]))


def _macs(
    model: SmartBertForSequenceClassification,
    split: Dataset,
    traces: list[Trace],
    *,
    gates: bool = True,
    exits: bool = True,
) -> float:
    """The mean over texts of what each trace met: layers run, gates asked before them, heads asked after them."""
    counter, costs = MacCounter(config=model.config), []
    for ids, trace in zip(split["input_ids"], traces, strict=True):
        tokens = np.array([len(ids)])
        early = [layer for layer in trace.layers_run if layer < LAYERS] if exits else []
        heads = len(early) + (trace.exit_layer == LAYERS)  # the last one answers whoever comes to it
        asked = len(trace.layers_run) + len(trace.layers_skipped) if gates else 0
        cost = len(trace.layers_run) * counter.layer(tokens) + asked * counter.gate(tokens)
        costs.append(int((cost + heads * counter.exit(tokens))[0]))
    return float(np.mean(costs))


def _shown(point: CurvePoint) -> tuple[float, float, float]:
    return point.accuracy, point.mean_layers_run, point.macs


def test_figures_follow_inference_rule(
    model: SmartBertForSequenceClassification, split: Dataset, report: Evaluation
) -> None:
    traces = _traces(model, split, POLICY)
    assert (report.texts, report.layers, report.skip_threshold, report.exit_threshold) == (TEXTS, LAYERS, 0.5, 0.5)
    assert report.summary.accuracy == pytest.approx(_accuracy(traces))
    assert report.summary.mean_layers_run == pytest.approx(_layers_run(traces))
    assert report.macs == pytest.approx(_macs(model, split, traces))
    exits = [sum(trace.exit_layer == layer for trace in traces) / TEXTS for layer in range(1, LAYERS + 1)]
    assert report.summary.exit_rate == pytest.approx(exits)
    skips = [sum(layer in trace.layers_skipped for trace in traces) / TEXTS for layer in range(1, LAYERS + 1)]
    assert report.summary.skip_rate == pytest.approx(skips)
    assert sum(rate > 0.0 for rate in exits) == 3 and min(skips) > 0.0  # the tiny model decides now this way, now that


def test_full_depth_cost(model: SmartBertForSequenceClassification, split: Dataset, report: Evaluation) -> None:
    traces = _traces(model, split, Policy(skip_threshold=0.5, no_exit=True))
    assert report.full_depth.accuracy == pytest.approx(_accuracy(traces))
    assert report.full_depth.mean_layers_run == pytest.approx(_layers_run(traces))
    assert report.full_depth.exit_rate == (0.0, 0.0, 0.0, 1.0)
    assert report.full_depth_macs == pytest.approx(_macs(model, split, traces, exits=False))


def test_plain_cost(model: SmartBertForSequenceClassification, split: Dataset, report: Evaluation) -> None:
    tokens_r = token_counts(split)
    assert tokens_r.tolist() == [sum(mask) for mask in split["attention_mask"]]
    assert tokens_r.max() == 24 and tokens_r.min() < 10
    assert report.mean_tokens == pytest.approx(tokens_r.mean())
    assert report.plain_macs == pytest.approx(plain_macs(model.config.backbone_config, 3, tokens_r).mean())


def test_curve_with_gates_and_exits(
    model: SmartBertForSequenceClassification, split: Dataset, report: Evaluation
) -> None:
    points = {point.value: point for point in report.curves["both"]}
    for threshold in (0.0, 0.1, 0.5, 1.0):
        traces = _traces(model, split, Policy(skip_threshold=0.5, exit_threshold=threshold))
        expected = _accuracy(traces), _layers_run(traces), _macs(model, split, traces)
        assert _shown(points[threshold]) == pytest.approx(expected), threshold


def test_curve_with_gates_off(model: SmartBertForSequenceClassification, split: Dataset, report: Evaluation) -> None:
    points = {point.value: point for point in report.curves["gates off"]}
    for threshold in (0.0, 0.1, 0.5, 1.0):
        traces = _traces(model, split, Policy(no_skip=True, exit_threshold=threshold))
        expected = _accuracy(traces), _layers_run(traces), _macs(model, split, traces, gates=False)
        assert _shown(points[threshold]) == pytest.approx(expected), threshold
    assert points[0.0].mean_layers_run == LAYERS


def test_curve_with_exits_off(model: SmartBertForSequenceClassification, split: Dataset, report: Evaluation) -> None:
    points = report.curves["exits off"]
    assert tuple(point.value for point in points) == SKIP_THRESHOLDS
    for point in points:
        traces = _traces(model, split, Policy(skip_threshold=point.value, no_exit=True))
        expected = _accuracy(traces), _layers_run(traces), _macs(model, split, traces, exits=False)
        assert _shown(point) == pytest.approx(expected), point.value
    assert points[0].mean_layers_run < report.full_depth.mean_layers_run < points[1].mean_layers_run


@torch.no_grad()
def test_patience_curve(model: SmartBertForSequenceClassification, split: Dataset, report: Evaluation) -> None:
    exits: dict[int, list[int]] = {patience: [] for patience in (1, 2, 3, 4)}
    for ids in split["input_ids"]:
        answers = model.full_pass(torch.tensor([ids]), no_skip=True).logits_blc[0].argmax(-1).tolist()
        for patience, layers in exits.items():
            # The first layer whose answer and the `patience` before it are all one.
            rows = [answers[max(0, end - patience - 1) : end] for end in range(1, LAYERS + 1)]
            stops = [len(row) == patience + 1 and len(set(row)) == 1 for row in rows]
            layers.append(stops.index(True) + 1 if True in stops else LAYERS)
    points = report.curves["patience"]
    assert [point.value for point in points] == [4, 3, 2, 1]
    found = [point.mean_layers_run for point in points]
    assert found == pytest.approx([np.mean(exits[patience]) for patience in (4, 3, 2, 1)])
    assert found[3] < LAYERS - 0.25  # patience 1 ends early for some


def test_progress_counts_every_text(model: SmartBertForSequenceClassification, split: Dataset) -> None:
    ticks: list[int] = []
    evaluate(
        model,
        split,
        make_tokenizer(),
        LABELS,
        POLICY,
        skip_thresholds=SKIP_THRESHOLDS,
        batch_size=7,
        tick=ticks.append,
    )
    assert sum(ticks) == (2 + len(SKIP_THRESHOLDS)) * TEXTS
    assert max(ticks) == 7


def test_no_skip_thresholds(model: SmartBertForSequenceClassification, split: Dataset) -> None:
    found = evaluate(model, split, make_tokenizer(), LABELS, POLICY, skip_thresholds=())
    assert list(found.curves) == ["both", "gates off", "patience"]


def test_batch_size_changes_nothing(
    model: SmartBertForSequenceClassification, split: Dataset, report: Evaluation
) -> None:
    alone = evaluate(model, split, make_tokenizer(), LABELS, POLICY, skip_thresholds=SKIP_THRESHOLDS, batch_size=1)
    assert alone.summary == report.summary and alone.full_depth == report.full_depth
    assert (alone.macs, alone.curves["exits off"]) == (report.macs, report.curves["exits off"])


def _fixed(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """The points that do not lie where the heads' own entropies do, which rounding moves."""
    return [point for point in points if point.value in EXIT_THRESHOLDS or point.value >= 1.0]


def test_gateless_model(model: SmartBertForSequenceClassification, split: Dataset, report: Evaluation) -> None:
    ungated = with_config(model, gates=False)
    found = evaluate(ungated, split, make_tokenizer(), LABELS, POLICY, skip_thresholds=SKIP_THRESHOLDS)
    assert list(found.curves) == ["gates off", "patience"]
    for name, points in found.curves.items():  # as if its gates were not asked
        assert _fixed(points) == _fixed(report.curves[name])
    assert found.summary.skip_rate == (0.0,) * LAYERS
    assert found.full_depth.mean_layers_run == LAYERS
    last = MacCounter(config=ungated.config).exit(token_counts(split)).mean()
    layers = LAYERS * MacCounter(config=ungated.config).layer(token_counts(split)).mean()
    assert found.full_depth_macs == pytest.approx(layers + last)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_plain_classifier(encoder_dir: Path, split: Dataset, pooling: str) -> None:
    plain = PlainClassifier.from_backbone(
        str(encoder_dir), pooling=pooling, seed=2, max_input_length=24, id2label=dict(enumerate(LABELS))
    )
    ticks: list[int] = []
    found = evaluate(plain, split, make_tokenizer(), LABELS, Policy(exit_threshold=1.0), tick=ticks.append)
    assert sum(ticks) == TEXTS and found.curves == {}
    assert found.summary == found.full_depth
    assert found.summary.mean_layers_run == LAYERS
    assert found.summary.exit_accuracy == (None, None, None, found.summary.accuracy)
    with torch.no_grad():
        answers = [
            int(plain.logits(torch.tensor([ids]), torch.ones(1, len(ids)), None).argmax()) for ids in split["input_ids"]
        ]
    assert found.summary.accuracy == pytest.approx(np.mean(np.array(answers) == np.array(LABEL_IDS)))
    expected = plain_macs(plain.backbone_config, 3, token_counts(split), pooling=pooling).mean()
    assert found.macs == found.full_depth_macs == pytest.approx(expected)
