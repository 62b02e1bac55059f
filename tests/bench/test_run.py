"""run_bench: quality and depth are exact, times and ratios are consistent, every contender gets the same texts."""

from __future__ import annotations

import json
import platform
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest

from smartbert_bench.contenders.contender import Contender
from smartbert_bench.contenders.package_variants import package_contenders
from smartbert_bench.contenders.plain_graph import plain_contenders
from smartbert_bench.render import bench_json
from smartbert_bench.report import BenchReport
from smartbert_bench.run import run_bench
from smartbert_runtime import SmartBert
from smartbert_runtime.errors import BenchError, InputError
from smartbert_runtime.package.open import Package
from smartbert_runtime.reporting import Reporter
from tests.bench.conftest import QUICK, TEXTS, make_examples
from tests.conftest import LABELS, LAYERS


def other(label: str) -> str:
    return next(name for name in LABELS if name != label)


@pytest.fixture(scope="module")
def labels(answers: tuple[str, ...]) -> tuple[str, ...]:
    """The package's own answers, but for the last text."""
    return (*answers[:3], other(answers[3]))


class Steps(Reporter):
    """Collects the steps that a run reports."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def step(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture(scope="module")
def steps() -> Steps:
    return Steps()


@pytest.fixture(scope="module")
def report(
    package: Package,
    own: list[Contender],
    labels: tuple[str, ...],
    steps: Steps,
    tmp_path_factory: pytest.TempPathFactory,
) -> BenchReport:
    plain = plain_contenders(package, package.manifest.variants, QUICK, tmp_path_factory.mktemp("plain"))
    return run_bench(package, [*own, *plain], make_examples(labels), QUICK, reporter=steps)


def test_quality_and_depth_are_exact(
    report: BenchReport, classifier: SmartBert, answers: tuple[str, ...], labels: tuple[str, ...]
) -> None:
    policy, full_depth, plain = report.contenders
    assert [row.name for row in report.contenders] == ["separate-fp32", "separate-fp32, full depth", "plain-fp32"]
    assert [row.kind for row in report.contenders] == ["package", "package", "plain"]
    assert policy.accuracy == 0.75
    assert policy.mean_layers_run == 2.5  # (1 + 2 + 4 + 3) / 4
    for label, recall in policy.recall.items():
        mine = [row for row in range(4) if labels[row] == label]
        assert recall == pytest.approx(sum(answers[row] == label for row in mine) / len(mine))
    assert list(policy.recall) == sorted(set(labels))
    full = [p.label for p in classifier.classify(TEXTS, policy=classifier.policy("full-depth"))]
    right = sum(one == two for one, two in zip(full, labels, strict=True)) / 4
    assert [(row.accuracy, row.mean_layers_run) for row in (full_depth, plain)] == [(right, LAYERS)] * 2


def test_times_sizes_and_memory(report: BenchReport, package: Package) -> None:
    for row in report.contenders:
        ms = row.latency_ms
        assert 0.0 < ms.p50 <= ms.p95 <= ms.p99 and ms.mean > 0.0
        assert row.texts_per_second.keys() == {"2"} and row.texts_per_second["2"] > 0.0
        assert row.first_answer_seconds is not None and 0.0 < row.load_seconds < row.first_answer_seconds
        if Path("/proc/self/status").exists():
            assert row.loaded_mb and row.steady_mb and row.peak_mb and row.batch_peak_mb
            assert row.steady_mb <= row.peak_mb <= row.batch_peak_mb and row.loaded_mb <= row.peak_mb
    policy, full_depth, plain = report.contenders
    # Every file of this folder except those for the parity check.
    spared = package.manifest.golden
    files = sum(file.stat().st_size for file in package.root.rglob("*") if file.is_file())
    files -= spared.expected.bytes + (spared.texts.bytes if spared.texts else 0)
    files -= (package.root / "SUMMARY.md").stat().st_size
    assert policy.disk_mb == full_depth.disk_mb == files / 1e6
    assert plain.disk_mb < policy.disk_mb  # no gates, one head


def test_ratios_over_full_depth_and_plain(report: BenchReport) -> None:
    assert [(ratio.of, ratio.over) for ratio in report.ratios] == [
        ("separate-fp32", "separate-fp32, full depth"),
        ("separate-fp32", "plain-fp32"),
    ]
    for ratio in report.ratios:
        for spread in (ratio.median, ratio.mean, ratio.texts_per_second["2"]):
            assert 0.0 < spread.low <= spread.value <= spread.high


def test_conditions_of_the_run(report: BenchReport) -> None:
    found = report.conditions
    assert (found.source, found.texts, found.pairs) == ("dev.csv", 4, False)
    # With [CLS] and [SEP]: 8, 14, 11 and 8 tokens.
    assert (found.tokens.mean, found.tokens.p50, found.tokens.max) == (10.25, 9.5, 14)
    assert (found.preset, found.providers, found.threads) == ("default", ("CPUExecutionProvider",), 1)
    assert (found.repeats, found.batch_sizes, found.starts) == (2, (2,), 1)
    assert found.versions["python"] == platform.python_version()
    assert found.versions["onnxruntime"] == onnxruntime.__version__
    assert found.machine == platform.machine() and found.cores >= 1


def test_steps_are_reported(report: BenchReport, steps: Steps) -> None:
    names = [row.name for row in report.contenders]
    assert steps.texts == [
        *(f"start 1 of 1: {name}" for name in names),
        "loading separate-fp32",
        "loading plain-fp32",
        "warming up",
        "pass 1 of 2: 4 texts one by one, 3 contenders in turns",
        "pass 2 of 2: 4 texts one by one, 3 contenders in turns",
        "pass 1 of 2: 8 texts in batches of 2",
        "pass 2 of 2: 8 texts in batches of 2",
    ]


def test_json_keys(report: BenchReport) -> None:
    document = json.loads(bench_json(report))
    assert document.keys() == {"conditions", "contenders", "ratios"}
    assert document["contenders"][0]["latency_ms"].keys() == {"p50", "p95", "p99", "mean"}
    assert document["ratios"][0]["texts_per_second"]["2"].keys() == {"value", "low", "high"}


def test_no_starts_and_no_batches(package: Package, answers: tuple[str, ...]) -> None:
    settings = replace(QUICK, preset="full-depth", repeats=1, batch_sizes=(), starts=0)
    contenders = package_contenders(package, package.manifest.variants, settings)
    (row,) = run_bench(package, contenders, make_examples(answers), settings).contenders
    # This preset is full depth: a second contender at full depth would be the same one.
    assert (row.name, row.mean_layers_run) == ("separate-fp32", LAYERS)
    assert (row.first_answer_seconds, row.batch_peak_mb, row.texts_per_second) == (None, None, {})
    assert row.load_seconds > 0.0


def test_pairs(
    package: Package, own: list[Contender], classifier: SmartBert, answers: tuple[str, ...], tmp_path: Path
) -> None:
    settings = replace(QUICK, repeats=1, starts=0)
    plain = plain_contenders(package, package.manifest.variants, settings, tmp_path)
    examples = make_examples(answers, pairs=TEXTS[::-1])
    found = run_bench(package, [own[0], *plain], examples, settings)
    for row, preset in zip(found.contenders, ("default", "full-depth"), strict=True):
        predictions = classifier.classify(TEXTS, text_pairs=TEXTS[::-1], policy=classifier.policy(preset))
        assert row.accuracy == sum(p.label == a for p, a in zip(predictions, answers, strict=True)) / 4
        assert row.mean_layers_run == sum(len(p.layers_run) for p in predictions) / 4
    assert found.conditions.pairs


def test_unknown_label_is_refused(package: Package, own: list[Contender]) -> None:
    with pytest.raises(InputError, match=r"^data/dev\.csv, line 5: the model has no label 'spam'$") as caught:
        run_bench(package, own, make_examples(("calm", "odd", "spam", "calm")), QUICK)
    assert caught.value.hint == "its labels: calm, loud, odd"


def test_missing_labels_are_refused(package: Package, own: list[Contender]) -> None:
    with pytest.raises(InputError, match="label"):
        run_bench(package, own, make_examples(None), QUICK)


def test_failing_contender_is_named(package: Package, answers: tuple[str, ...]) -> None:
    settings = replace(QUICK, providers=("MoonProvider",))
    contenders = package_contenders(package, package.manifest.variants, settings)
    with pytest.raises(BenchError, match=r"^separate-fp32: onnxruntime has no provider 'MoonProvider'") as caught:
        run_bench(package, contenders, make_examples(answers), settings)
    assert "CPUExecutionProvider" in caught.value.hint
