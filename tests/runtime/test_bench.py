"""bench: quality and depth are exact, times are consistent, and labels that the model lacks are refused."""

from __future__ import annotations

import os
from dataclasses import replace

import onnxruntime
import pytest

from smartbert_runtime import SmartBert
from smartbert_runtime.bench import bench
from smartbert_runtime.errors import ConfigError, InputError
from smartbert_runtime.records import Examples
from tests.conftest import LABELS, LAYERS

# Layers run under the package's policy: 3 alone; 1, 2; all; 1, 2, 3.
TEXTS = (
    "Down, down, down.",
    "Oh dear! Oh dear! I shall be too late!",
    "Would the fall never come to an end?",
    "We are all mad here.",
)


def make_examples(labels: tuple[str, ...] | None) -> Examples:
    return Examples(texts=TEXTS, pairs=None, labels=labels, lines=(2, 3, 5, 6), source="dev.csv")


@pytest.fixture(scope="module")
def answers(classifier: SmartBert) -> tuple[str, ...]:
    return tuple(prediction.label for prediction in classifier.classify(TEXTS))


def other(label: str) -> str:
    return next(name for name in LABELS if name != label)


def test_quality_and_depth_are_counted_exactly(classifier: SmartBert, answers: tuple[str, ...]) -> None:
    labels = (*answers[:3], other(answers[3]))
    report = bench(classifier, make_examples(labels), repeats=2)
    assert (report.policy.name, report.policy.accuracy) == ("default", 0.75)
    assert report.policy.mean_layers_run == 2.5  # (1 + 2 + 4 + 3) / 4
    for label, recall in report.policy.recall.items():
        own = [row for row in range(4) if labels[row] == label]
        assert recall == pytest.approx(sum(answers[row] == label for row in own) / len(own))
    assert list(report.policy.recall) == sorted(set(labels))
    full = [p.label for p in classifier.classify(TEXTS, policy=classifier.policy("full-depth"))]
    assert (report.full_depth.name, report.full_depth.mean_layers_run, report.layers) == ("full depth", LAYERS, LAYERS)
    assert report.full_depth.accuracy == sum(one == two for one, two in zip(full, labels, strict=True)) / 4


def test_times_and_speedups_fit_each_other(classifier: SmartBert, answers: tuple[str, ...]) -> None:
    report = bench(classifier, make_examples(answers), repeats=3)
    for figures in (report.policy, report.full_depth):
        assert 0.0 < figures.median_ms <= figures.p95_ms
        assert figures.mean_ms > 0.0
    assert report.speedup_median == pytest.approx(report.full_depth.median_ms / report.policy.median_ms)
    assert report.speedup_mean == pytest.approx(report.full_depth.mean_ms / report.policy.mean_ms)
    low, high = report.speedup_mean_spread
    assert 0.0 < low <= high


def test_the_conditions_are_those_of_the_run(classifier: SmartBert, answers: tuple[str, ...]) -> None:
    conditions = bench(classifier, make_examples(answers), repeats=1).conditions
    assert (conditions.texts, conditions.repeats, conditions.batch_size) == (4, 1, 1)
    # With [CLS] and [SEP]: 8, 14, 11 and 8 tokens.
    assert conditions.mean_tokens == 10.25
    assert (conditions.threads, conditions.cores) == (classifier.sessions.threads, os.cpu_count())
    assert (conditions.variant, conditions.providers) == ("separate-fp32", ("CPUExecutionProvider",))
    assert conditions.onnxruntime == onnxruntime.__version__


def test_pairs_are_measured_as_pairs(classifier: SmartBert, answers: tuple[str, ...]) -> None:
    examples = replace(make_examples(answers), pairs=TEXTS[::-1])
    predictions = classifier.classify(TEXTS, text_pairs=TEXTS[::-1])
    report = bench(classifier, examples, repeats=1)
    assert report.policy.accuracy == sum(p.label == a for p, a in zip(predictions, answers, strict=True)) / 4
    assert report.policy.mean_layers_run == sum(len(p.layers_run) for p in predictions) / 4


def test_each_pass_is_announced(classifier: SmartBert, answers: tuple[str, ...]) -> None:
    heard: list[str] = []
    bench(classifier, make_examples(answers), repeats=2, on_pass=heard.append)
    assert heard[0] == "warming up"
    assert [line.split(":")[0] for line in heard[1:]] == ["pass 1 of 2", "pass 2 of 2"]


def test_another_preset_can_be_measured(classifier: SmartBert, answers: tuple[str, ...]) -> None:
    report = bench(classifier, make_examples(answers), preset="full-depth", repeats=1)
    assert (report.policy.name, report.policy.mean_layers_run) == ("full-depth", LAYERS)
    with pytest.raises(ConfigError, match="no preset 'fast'"):
        bench(classifier, make_examples(answers), preset="fast")


def test_a_label_that_the_model_lacks_is_named_with_its_line(classifier: SmartBert) -> None:
    with pytest.raises(InputError, match=r"^dev\.csv, line 5: the model has no label 'spam'$") as caught:
        bench(classifier, make_examples(("calm", "odd", "spam", "calm")))
    assert caught.value.hint == "its labels: calm, loud, odd"


def test_texts_without_labels_are_refused(classifier: SmartBert) -> None:
    with pytest.raises(InputError, match="label"):
        bench(classifier, make_examples(None), repeats=1)


def test_repeats_below_one_are_refused(classifier: SmartBert, answers: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="repeats must be 1 or more, not 0"):
        bench(classifier, make_examples(answers), repeats=0)
