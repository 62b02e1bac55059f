"""smartbert-infer's three formats: JSON lines as in the contract, csv and text; notes only on stderr."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

from smartbert_runtime import SmartBert
from smartbert_runtime.cli.infer import main
from tests.cli.conftest import Call
from tests.conftest import LABELS, SENTENCES
from tests.helpers import assert_named_error

KEYS = {
    "index": int,
    "text": str,
    "label": str,
    "score": float,
    "probabilities": dict,
    "exit_layer": int,
    "layers_run": list,
    "layers_skipped": list,
    "latency_ms": float,
}
# Two of the sentences are longer than the tiny model's 24 tokens.
CUT = "note: 2 of 24 texts were longer than the model and were cut\n"
LONG = "Would the fall never come to an end, and would the poor little Alice never come to the end of it at all? " * 2


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def json_lines(out: str) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=refuse) for line in out.splitlines()]


def texts_of(texts: tuple[str, ...]) -> list[str]:
    return [argument for text in texts for argument in ("--text", text)]


def test_json_keys_and_types(call: Call, package_dir: Path, classifier: SmartBert) -> None:
    run = call(main, package_dir, *texts_of(SENTENCES), "--format", "json")
    assert run.code == 0 and run.err == CUT
    rows = json_lines(run.out)
    assert len(rows) == len(SENTENCES)
    for index, (row, prediction) in enumerate(zip(rows, classifier.classify(SENTENCES), strict=True)):
        assert list(row) == list(KEYS)
        assert {key: type(value) for key, value in row.items()} == KEYS
        assert row["index"] == index and row["text"] == SENTENCES[index]
        assert list(row["probabilities"]) == list(LABELS)
        assert sum(row["probabilities"].values()) == pytest.approx(1.0)
        assert row["score"] == row["probabilities"][row["label"]] == max(row["probabilities"].values())
        assert row["label"] == prediction.label
        assert row["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-6)
        assert (row["exit_layer"], row["layers_run"], row["layers_skipped"]) == (
            prediction.exit_layer,
            list(prediction.layers_run),
            list(prediction.layers_skipped),
        )
        assert 0.0 < row["latency_ms"] < 60_000.0
    assert len({row["exit_layer"] for row in rows}) >= 3


def test_json_of_a_pair(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--text", "Do cats eat bats?", "--text-pair", "Do bats eat cats?", "--format", "json")
    (row,) = json_lines(run.out)
    assert list(row) == ["index", "text", "text_pair", *list(KEYS)[2:]]
    assert row["text_pair"] == "Do bats eat cats?"


def test_json_keeps_unicode(call: Call, package_dir: Path) -> None:
    texts = ("Größe — 猫 🐇", "two\nlines", 'a "quote", a \\ and a tab\t')
    run = call(main, package_dir, *texts_of(texts), "--format", "json")
    assert [row["text"] for row in json_lines(run.out)] == list(texts)
    assert "Größe — 猫 🐇" in run.out


def test_csv_header_and_quoting(call: Call, package_dir: Path, classifier: SmartBert) -> None:
    texts = (SENTENCES[2], 'She said "off", twice.', SENTENCES[1])
    run = call(main, package_dir, *texts_of(texts), "--format", "csv")
    assert run.code == 0 and run.err == ""
    rows = list(csv.DictReader(io.StringIO(run.out, newline="")))
    assert list(rows[0]) == [
        "index", "text", "label", "score", "exit_layer", "layers_run", "layers_skipped", "latency_ms",
    ]  # fmt: skip
    assert [row["text"] for row in rows] == list(texts) and [row["index"] for row in rows] == ["0", "1", "2"]
    for row, prediction in zip(rows, classifier.classify(texts), strict=True):
        assert row["label"] == prediction.label and int(row["exit_layer"]) == prediction.exit_layer
        assert float(row["score"]) == pytest.approx(prediction.score, abs=1e-6)
        assert row["layers_run"] == " ".join(map(str, prediction.layers_run))
        assert row["layers_skipped"] == " ".join(map(str, prediction.layers_skipped))


def test_text_draws_layers(call: Call, package_dir: Path, classifier: SmartBert) -> None:
    run = call(main, package_dir, *texts_of(SENTENCES))
    assert run.code == 0 and run.err == CUT
    lines = run.out.splitlines()
    assert len(lines) == len(SENTENCES)
    for line, prediction in zip(lines, classifier.classify(SENTENCES), strict=True):
        found = re.fullmatch(r"(\w+)  (\d\.\d{3})  ([#.-]{4})  (\d) of 4 layers  \d+\.\d ms  (.*)", line)
        assert found is not None, line
        label, score, drawn, count, text = found.groups()
        assert (label, text) == (prediction.label, prediction.text)
        assert float(score) == pytest.approx(prediction.score, abs=6e-4)
        assert {layer for layer, sign in enumerate(drawn, 1) if sign == "#"} == set(prediction.layers_run)
        assert {layer for layer, sign in enumerate(drawn, 1) if sign == "-"} == set(prediction.layers_skipped)
        assert int(count) == drawn.count("#")
    assert {sign for line in lines for sign in line.split("  ")[2]} == set("#-.")


@pytest.mark.parametrize("format", ["text", "json", "csv"])
def test_trace_on_stderr(call: Call, package_dir: Path, classifier: SmartBert, format: str) -> None:
    plain = call(main, package_dir, *texts_of(SENTENCES[:6]), "--format", format)
    traced = call(main, package_dir, *texts_of(SENTENCES[:6]), "--format", format, "--trace")
    timeless = [re.sub(r"\d+\.\d+( ms|}|\n|$)", "TIME", run.out) for run in (plain, traced)]
    assert timeless[0] == timeless[1]
    predictions = classifier.classify(SENTENCES[:6])
    lines = [line for line in traced.err.splitlines() if "layer " in line]
    assert len(lines) == sum(len(p.layers_run) + len(p.layers_skipped) for p in predictions)
    others = [line for line in traced.err.splitlines() if "layer " not in line]
    assert len(others) == 6
    assert all(re.fullmatch(r"    tokenizer \d+\.\d\d ms, embeddings \d+\.\d\d ms", line) for line in others)
    steps = [
        f"layer {step.layer}: {'skipped' if step.skipped else 'run'}" for p in predictions for step in p.trace.steps()
    ]
    assert [line.strip()[: len(step)] for line, step in zip(lines, steps, strict=True)] == steps
    assert all(re.search(r"skip probability \d\.\d{3}.*  \d+\.\d\d ms", line) for line in lines)
    assert sum("answers" in line for line in lines) == 6


def test_truncated_texts_are_noted(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, *texts_of((LONG, "Off with her head!", LONG)), "--format", "json")
    assert run.code == 0 and len(json_lines(run.out)) == 3
    assert run.err == "note: 2 of 3 texts were longer than the model and were cut\n"


def test_no_note_without_truncation(call: Call, package_dir: Path) -> None:
    assert call(main, package_dir, "--text", "Off with her head!", "--no-truncate").err == ""


def test_verbose_lists_providers(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--text", "Off with her head!", "--verbose", "--preload", "--threads", "1")
    assert len(run.out.splitlines()) == 1
    lines = run.err.splitlines()
    assert lines[0] == "1 threads, separate-fp32"
    assert len(lines) == 1 + 13 and all(line.endswith("nodes on CPUExecutionProvider") for line in lines[1:])


def test_parts_load_on_demand(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--text", "Off with her head!", "--verbose", "--no-skip", "--no-exit")
    assert [line.split(":")[0].strip() for line in run.err.splitlines()[1:]] == [
        "embeddings", "exit_04", "layer_01", "layer_02", "layer_03", "layer_04",
    ]  # fmt: skip


def test_trace_file(call: Call, package_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    run = call(main, package_dir, *texts_of(SENTENCES[:6]), "--batch-size", "1", "--trace-file", str(file))
    assert run.code == 0
    events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    assert [event["name"] for event in events].count("embeddings") == 6
    assert_named_error(
        call(main, package_dir, "--text", "a", "--trace-file", str(tmp_path / "no" / "t.json")),
        "cannot be written",
        "name",
    )
