"""smartbert-bench: figures that fit the answers, the conditions they were measured under, and its bad inputs."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from smartbert_export.cli.bench import main
from smartbert_runtime import Policy, SmartBert
from tests.cli.conftest import Call
from tests.conftest import LABELS, SENTENCES
from tests.helpers import assert_named_error

TRUTH = [LABELS[number % 3] for number in range(len(SENTENCES))]
FIGURES = {"name", "accuracy", "recall", "mean_layers_run", "median_ms", "mean_ms", "p95_ms"}
CONDITIONS = {
    "texts", "mean_tokens", "repeats", "batch_size", "threads", "variant", "providers", "onnxruntime", "python",
    "machine", "cores", "load_average",
}  # fmt: skip


@pytest.fixture
def dev(tmp_path: Path) -> Path:
    file = tmp_path / "dev.tsv"
    rows = [f"{text}\t{label}\n" for text, label in zip(SENTENCES, TRUTH, strict=True)]
    file.write_text("sentence\tlabel\n" + "".join(rows), encoding="utf-8")
    return file


def report_of(out: str) -> dict[str, Any]:
    assert len(out.splitlines()) == 1
    loaded: dict[str, Any] = json.loads(out)
    return loaded


def test_json_has_every_figure_and_condition(call: Call, package_dir: Path, classifier: SmartBert, dev: Path) -> None:
    run = call(main, package_dir, "--file", dev, "--format", "json", "--repeats", "2", "--threads", "1")
    assert run.code == 0
    report = report_of(run.out)
    tokens = classifier.tokenizer.encode(SENTENCES).attention_mask_bs.sum(axis=1)
    conditions = report["conditions"]
    assert set(conditions) == CONDITIONS
    assert (conditions["texts"], conditions["repeats"], conditions["batch_size"]) == (24, 2, 1)
    assert conditions["mean_tokens"] == pytest.approx(float(tokens.mean()))
    assert (conditions["threads"], conditions["variant"]) == (1, "separate-fp32")
    assert conditions["providers"] == ["CPUExecutionProvider"]
    assert conditions["onnxruntime"] == onnxruntime.__version__
    assert conditions["python"] == platform.python_version()
    assert report["layers"] == 4
    for name, policy in (("policy", None), ("full_depth", Policy(no_skip=True, no_exit=True))):
        predictions = classifier.classify(SENTENCES, policy=policy)
        right = [prediction.label == label for prediction, label in zip(predictions, TRUTH, strict=True)]
        figures = report[name]
        assert set(figures) == FIGURES
        assert figures["accuracy"] == pytest.approx(sum(right) / 24)
        assert figures["mean_layers_run"] == pytest.approx(sum(len(p.layers_run) for p in predictions) / 24)
        assert figures["recall"] == pytest.approx(
            {label: sum(hit for hit, own in zip(right, TRUTH, strict=True) if own == label) / 8 for label in LABELS}
        )
        assert 0.0 < figures["median_ms"] <= figures["p95_ms"] and figures["mean_ms"] > 0.0
    assert (report["policy"]["name"], report["full_depth"]["name"]) == ("default", "full depth")
    assert report["full_depth"]["mean_layers_run"] == 4.0 > report["policy"]["mean_layers_run"]
    for kind in ("median", "mean"):
        ratio = report["full_depth"][f"{kind}_ms"] / report["policy"][f"{kind}_ms"]
        assert report[f"speedup_{kind}"] == pytest.approx(ratio)
    low, high = report["speedup_mean_spread"]
    assert 0.0 < low <= high


def test_text_has_them_all_too(call: Call, package_dir: Path, dev: Path) -> None:
    run = call(main, package_dir, "--file", dev, "--repeats", "1")
    assert run.code == 0
    head, policy, full, recall, faster, conditions = run.out.splitlines()
    assert re.split(r"  +", head.strip()) == ["accuracy", "layers run", "median ms", "mean ms", "p95 ms"]
    row = r"{}\s+(\d\.\d{{4}})\s+(\d\.\d\d) of 4\s+(\d+\.\d\d)\s+(\d+\.\d\d)\s+(\d+\.\d\d)"
    assert re.fullmatch(row.format("default"), policy) and re.fullmatch(row.format("full depth"), full), run.out
    assert re.fullmatch(r"recall\s+calm \d\.\d{4}, loud \d\.\d{4}, odd \d\.\d{4}", recall)
    assert re.fullmatch(r"faster\s+[\d.]+x at the median, [\d.]+x on average \([\d.]+ to [\d.]+ over 1 .*\)", faster)
    for word in ("24 texts", "tokens on average", "one at a time", "threads of", "separate-fp32", "CPUExecution"):
        assert word in conditions
    assert (
        f"onnxruntime {onnxruntime.__version__}" in conditions and f"Python {platform.python_version()}" in conditions
    )


def test_what_is_being_done_is_told_on_stderr(call: Call, package_dir: Path, dev: Path) -> None:
    run = call(main, package_dir, "--file", dev, "--repeats", "2", "--format", "json")
    lines = run.err.splitlines()
    assert lines[0] == "warming up"
    assert [line.split(":")[0] for line in lines[1:]] == ["pass 1 of 2", "pass 2 of 2"]


def test_another_preset_is_measured(call: Call, package_dir: Path, dev: Path) -> None:
    run = call(main, package_dir, "--file", dev, "--preset", "full-depth", "--repeats", "1", "--format", "json")
    report = report_of(run.out)
    assert report["policy"]["name"] == "full-depth" and report["policy"]["mean_layers_run"] == 4.0


def test_pairs_are_measured_as_pairs(call: Call, package_dir: Path, classifier: SmartBert, tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("a,b,kind\nDo cats eat bats?,Do bats eat cats?,odd\n", encoding="utf-8")
    columns = ["--text-column", "a", "--pair-column", "b", "--label-column", "kind"]
    report = report_of(call(main, package_dir, "--file", file, "--format", "json", "--repeats", "1", *columns).out)
    tokens = classifier.tokenizer.encode(["Do cats eat bats?"], ["Do bats eat cats?"])
    assert report["conditions"]["mean_tokens"] == tokens.input_ids_bs.shape[1]


def test_save_writes_the_report_beside_the_printed_one(call: Call, package_dir: Path, dev: Path) -> None:
    target = dev.parent / "bench.json"
    run = call(main, package_dir, "--file", dev, "--repeats", "1", "--save", target)
    assert run.code == 0 and run.out.startswith(" ")
    assert report_of(target.read_text(encoding="utf-8"))["conditions"]["texts"] == 24


def test_a_report_that_cannot_be_saved_is_a_named_error(call: Call, package_dir: Path, dev: Path) -> None:
    target = dev.parent / "nowhere" / "bench.json"
    run = call(main, package_dir, "--file", dev, "--repeats", "1", "--save", target)
    assert_named_error(run, "bench.json cannot be written")


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("text,label\nfine,happy\n", [], ["line 2: the model has no label 'happy'", "calm, loud, odd"]),
        ("text,class\nfine,odd\n", [], ["no column 'label' for the labels", "text, class", "--label-column"]),
        ("text,label\nfine,\n", [], ["line 2: label is empty"]),
        ("text,label\nfine,odd\n", ["--repeats", "0"], ["repeats must be 1 or more, not 0"]),
        ("text,label\nfine,odd\n", ["--preset", "fast"], ["no preset 'fast'", "default, full-depth"]),
        ("text,label\nfine,odd\n", ["--text-column", "body"], ["no column 'body'", "text, label"]),
        ("text,label\nfine,odd\n", ["--provider", "MoonProvider"], ["no provider 'MoonProvider'"]),
    ],
    ids=["unknown-label", "no-label-column", "empty-label", "no-repeats", "preset", "text-column", "provider"],
)
def test_a_bad_input_is_named(
    call: Call, package_dir: Path, tmp_path: Path, content: str, options: list[str], words: list[str]
) -> None:
    file = tmp_path / "dev.csv"
    file.write_text(content, encoding="utf-8")
    assert_named_error(call(main, package_dir, "--file", file, *options), *words)


def test_a_missing_package_or_file_is_named(call: Call, package_dir: Path, dev: Path, tmp_path: Path) -> None:
    assert_named_error(call(main, tmp_path / "nowhere", "--file", dev), "nowhere is not a folder")
    assert_named_error(call(main, package_dir, "--file", tmp_path / "no.tsv"), "no.tsv cannot be read")
