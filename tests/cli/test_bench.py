"""smartbert-bench: figures that fit the answers, the conditions they were measured under, and its bad inputs."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from smartbert_bench.cli import main
from smartbert_runtime import Policy, SmartBert
from tests.cli.conftest import Call
from tests.conftest import LABELS, SENTENCES
from tests.helpers import assert_named_error

TRUTH = [LABELS[number % 3] for number in range(len(SENTENCES))]
FIGURES = {
    "name", "kind", "accuracy", "recall", "mean_layers_run", "latency_ms", "texts_per_second", "load_seconds",
    "first_answer_seconds", "loaded_mb", "steady_mb", "peak_mb", "batch_peak_mb", "disk_mb",
}  # fmt: skip
CONDITIONS = {
    "source", "texts", "pairs", "tokens", "preset", "providers", "threads", "repeats", "batch_sizes", "starts",
    "cores", "machine", "processor", "load_average", "versions",
}  # fmt: skip
QUICK = ("--repeats", "1", "--starts", "0", "--batch-sizes", "")


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


def test_json_report(call: Call, package_dir: Path, classifier: SmartBert, dev: Path) -> None:
    options = ("--against", "plain", "--batch-sizes", "4,16", "--starts", "1", "--repeats", "2", "--threads", "1")
    run = call(main, package_dir, "--file", dev, "--format", "json", *options)
    assert run.code == 0, run.err
    report = report_of(run.out)
    assert report.keys() == {"conditions", "contenders", "ratios"}
    tokens = classifier.tokenizer.encode(SENTENCES).attention_mask_bs.sum(axis=1)
    conditions = report["conditions"]
    assert set(conditions) == CONDITIONS
    assert (conditions["source"], conditions["texts"], conditions["repeats"]) == ("dev.tsv", 24, 2)
    assert conditions["tokens"]["mean"] == pytest.approx(float(tokens.mean()))
    assert conditions["tokens"]["max"] == 24
    assert (conditions["threads"], conditions["batch_sizes"], conditions["starts"]) == (1, [4, 16], 1)
    assert conditions["providers"] == ["CPUExecutionProvider"]
    assert conditions["versions"]["onnxruntime"] == onnxruntime.__version__
    assert conditions["versions"]["python"] == platform.python_version()
    names = ["separate-fp32", "separate-fp32, full depth", "plain-fp32"]
    assert [figures["name"] for figures in report["contenders"]] == names
    full_depth = Policy(no_skip=True, no_exit=True)
    for figures, policy in zip(report["contenders"], (None, full_depth, full_depth), strict=True):
        predictions = classifier.classify(SENTENCES, policy=policy)
        right = [prediction.label == label for prediction, label in zip(predictions, TRUTH, strict=True)]
        assert set(figures) == FIGURES
        assert figures["accuracy"] == pytest.approx(sum(right) / 24)
        assert figures["mean_layers_run"] == pytest.approx(sum(len(p.layers_run) for p in predictions) / 24)
        assert figures["recall"] == pytest.approx(
            {label: sum(hit for hit, own in zip(right, TRUTH, strict=True) if own == label) / 8 for label in LABELS}
        )
        ms = figures["latency_ms"]
        assert 0.0 < ms["p50"] <= ms["p95"] <= ms["p99"] and ms["mean"] > 0.0
        assert figures["texts_per_second"].keys() == {"4", "16"}
    assert [(ratio["of"], ratio["over"]) for ratio in report["ratios"]] == [(names[0], over) for over in names[1:]]
    assert report["ratios"][0]["texts_per_second"].keys() == {"4", "16"}


def test_text_report(call: Call, package_dir: Path, dev: Path) -> None:
    run = call(main, package_dir, "--file", dev, "--repeats", "1", "--starts", "0", "--batch-sizes", "8")
    assert run.code == 0
    lines = run.out.splitlines()
    assert lines[1].split() == "accuracy layers p50 p95 p99 mean 8 load answer held peak disk".split()  # noqa: SIM905
    assert [line.split("  ")[0] for line in lines[2:4]] == ["separate-fp32", "separate-fp32, full depth"]
    assert lines[7].startswith("separate-fp32 against separate-fp32, full depth")
    words = " ".join(line.strip() for line in lines[9:])
    for word in ("recall of separate-fp32: calm ", "24 texts of dev.tsv", "tokens on average", "threads of", "load"):
        assert word in words
    assert f"onnxruntime {onnxruntime.__version__}" in words and f"python {platform.python_version()}" in words


def test_steps_on_stderr(call: Call, package_dir: Path, dev: Path) -> None:
    run = call(main, package_dir, "--file", dev, "--format", "json", *QUICK)
    assert run.err.splitlines() == [
        "loading separate-fp32",
        "warming up",
        "pass 1 of 1: 24 texts one by one, 2 contenders in turns",
    ]


def test_preset_and_number_of_texts(call: Call, package_dir: Path, dev: Path) -> None:
    options = ("--preset", "full-depth", "--max-texts", "3")
    report = report_of(call(main, package_dir, "--file", dev, "--format", "json", *options, *QUICK).out)
    (figures,) = report["contenders"]
    assert figures["mean_layers_run"] == 4.0
    assert (report["conditions"]["preset"], report["conditions"]["texts"]) == ("full-depth", 3)


def test_pairs(call: Call, package_dir: Path, classifier: SmartBert, tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("a,b,kind\nDo cats eat bats?,Do bats eat cats?,odd\n", encoding="utf-8")
    columns = ["--text-column", "a", "--pair-column", "b", "--label-column", "kind"]
    report = report_of(call(main, package_dir, "--file", file, "--format", "json", *QUICK, *columns).out)
    tokens = classifier.tokenizer.encode(["Do cats eat bats?"], ["Do bats eat cats?"])
    assert report["conditions"]["tokens"]["mean"] == tokens.input_ids_bs.shape[1]
    assert report["conditions"]["pairs"] is True


def test_save_and_plot(call: Call, package_dir: Path, dev: Path) -> None:
    saved, drawn = dev.parent / "bench.json", dev.parent / "bench.png"
    run = call(main, package_dir, "--file", dev, *QUICK, "--save", saved, "--plot", drawn)
    assert run.code == 0 and run.out.startswith(" ")
    assert report_of(saved.read_text(encoding="utf-8"))["conditions"]["texts"] == 24
    assert drawn.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("option", "name", "words"),
    [
        ("--save", "nowhere/bench.json", "bench.json cannot be written"),
        ("--plot", "nowhere/bench.png", "bench.png cannot be drawn"),
        ("--plot", "bench.txt", "bench.txt cannot be drawn"),
    ],
)
def test_unwritable_files_are_refused_first(
    call: Call, package_dir: Path, dev: Path, option: str, name: str, words: str
) -> None:
    run = call(main, package_dir, "--file", dev, *QUICK, option, dev.parent / name)
    assert_named_error(run, words)
    assert "loading" not in run.err


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("text,label\nfine,happy\n", [], ["line 2: the model has no label 'happy'", "calm, loud, odd"]),
        ("text,class\nfine,odd\n", [], ["no column 'label' for the labels", "text, class", "--label-column"]),
        ("text,label\nfine,\n", [], ["line 2: label is empty"]),
        ("text,label\nfine,odd\n", ["--repeats", "0"], ["repeats must be 1 or more, not 0"]),
        ("text,label\nfine,odd\n", ["--batch-sizes", "8;32"], ["'8;32' is not a list of batch sizes"]),
        ("text,label\nfine,odd\n", ["--preset", "fast"], ["no preset 'fast'", "default, full-depth"]),
        ("text,label\nfine,odd\n", ["--layout", "single"], ["no variant with layout single", "separate-fp32"]),
        ("text,label\nfine,odd\n", ["--text-column", "body"], ["no column 'body'", "text, label"]),
        ("text,label\nfine,odd\n", ["--provider", "MoonProvider"], ["no provider 'MoonProvider'"]),
        ("text,label\nfine,odd\n", ["--plain-checkpoint", "nowhere"], ["nowhere is not a checkpoint"]),
    ],
    ids=[
        "unknown-label", "no-label-column", "empty-label", "no-repeats", "batch-sizes", "preset", "layout",
        "text-column", "provider", "plain-checkpoint",
    ],
)  # fmt: skip
def test_bad_input(
    call: Call, package_dir: Path, tmp_path: Path, content: str, options: list[str], words: list[str]
) -> None:
    if "--plain-checkpoint" in options:
        pytest.importorskip("optimum", reason="optimum-onnx is not installed: pip install '.[incumbent]'")
    file = tmp_path / "dev.csv"
    file.write_text(content, encoding="utf-8")
    assert_named_error(call(main, package_dir, "--file", file, *options), *words)


def test_missing_package_or_file(call: Call, package_dir: Path, dev: Path, tmp_path: Path) -> None:
    assert_named_error(call(main, tmp_path / "nowhere", "--file", dev), "nowhere is not a folder")
    assert_named_error(call(main, package_dir, "--file", tmp_path / "no.tsv"), "no.tsv cannot be read")
