"""smartbert-infer's options for the policy and for how to run: presets, thresholds, rules, layouts, precisions."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from smartbert_runtime import Policy, Prediction, SmartBert
from smartbert_runtime.cli.infer import main
from tests.cli.conftest import Call
from tests.conftest import SENTENCES
from tests.helpers import assert_named_error
from tests.package_folders import VARIANTS

TEXTS = [argument for text in SENTENCES for argument in ("--text", text)]


def infer(call: Call, package: Path, *options: str) -> list[dict[str, Any]]:
    run = call(main, package, *TEXTS, "--format", "json", *options)
    assert run.code == 0, run.err
    return [json.loads(line) for line in run.out.splitlines()]


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ([], Policy(exit_threshold=0.5)),
        (["--preset", "default"], Policy(exit_threshold=0.5)),
        (["--preset", "full-depth"], Policy(exit_threshold=0.5, no_skip=True, no_exit=True)),
        (["--exit-threshold", "0.9"], Policy(exit_threshold=0.9)),
        (["--exit-threshold", "0"], Policy(exit_threshold=0.0)),
        (["--rule", "patience", "--patience", "1"], Policy(rule="patience", patience=1, exit_threshold=0.5)),
        (["--rule", "max-probability"], Policy(rule="max-probability", exit_threshold=0.5)),
        (["--rule", "confident-patience"], Policy(rule="confident-patience", exit_threshold=0.5)),
        (["--exit-thresholds", "0,0.9,0,0"], Policy(exit_threshold=0.5, exit_thresholds=(0.0, 0.9, 0.0, 0.0))),
        (["--deadline-ms", "1e6"], Policy(exit_threshold=0.5, deadline_ms=1e6)),
        (["--skip-threshold", "0.3"], Policy(exit_threshold=0.5, skip_threshold=0.3)),
        (["--no-skip"], Policy(exit_threshold=0.5, no_skip=True)),
        (["--no-exit"], Policy(exit_threshold=0.5, no_exit=True)),
        (["--max-layers", "2"], Policy(exit_threshold=0.5, max_layers=2)),
        (
            ["--preset", "full-depth", "--max-layers", "3"],
            Policy(exit_threshold=0.5, no_skip=True, no_exit=True, max_layers=3),
        ),
        (["--no-skip", "--exit-threshold", "1"], Policy(exit_threshold=1.0, no_skip=True)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_make_the_policy(
    call: Call, package_dir: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], policy: Policy
) -> None:
    used: list[Policy | str | None] = []

    class Recorder(SmartBert):
        def classify(self, texts: Any, *, policy: Policy | str | None = None, **settings: Any) -> list[Prediction]:
            used.append(policy)
            return super().classify(texts, policy=policy, **settings)

    monkeypatch.setattr("smartbert_runtime.cli.infer.SmartBert", Recorder)
    assert call(main, package_dir, "--text", "Off with her head!", *options).code == 0
    assert used == [policy]


def test_full_depth_preset(call: Call, package_dir: Path) -> None:
    for row in infer(call, package_dir, "--preset", "full-depth"):
        assert (row["layers_run"], row["layers_skipped"], row["exit_layer"]) == ([1, 2, 3, 4], [], 4)


@pytest.mark.parametrize(
    "options",
    [
        ["--batch-size", "1"],
        ["--batch-size", "24"],
        ["--threads", "1"],
        ["--threads", "2"],
        ["--preload"],
        ["--layout", "separate"],
        ["--precision", "fp32"],
        ["--provider", "CPUExecutionProvider"],
        ["--provider", "layer=CPUExecutionProvider"],
    ],
    ids=" ".join,
)
def test_run_options_change_no_answer(call: Call, package_dir: Path, classifier: SmartBert, options: list[str]) -> None:
    for row, prediction in zip(infer(call, package_dir, *options), classifier.classify(SENTENCES), strict=True):
        expected = prediction.to_dict()
        assert row["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-5)
        for key in ("label", "exit_layer", "layers_run", "layers_skipped"):
            assert row[key] == expected[key], (key, row)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--preset", "fast"], ["no preset 'fast'", "it has: default, full-depth"]),
        (["--exit-threshold", "2"], ["exit_threshold must be from 0 to 1, not 2.0"]),
        (["--exit-threshold", "-0.1"], ["exit_threshold must be from 0 to 1"]),
        (["--exit-threshold", "nan"], ["exit_threshold must be from 0 to 1, not nan"]),
        (["--skip-threshold", "1.5"], ["skip_threshold must be from 0 to 1, not 1.5"]),
        (["--max-layers", "0"], ["max_layers must be 1 or more, not 0"]),
        (["--batch-size", "0"], ["batch_size must be 1 or more, not 0"]),
        (["--threads", "0"], ["threads must be 1 or more, not 0"]),
        (["--provider", "MoonProvider"], ["no provider 'MoonProvider'", "CPUExecutionProvider"]),
        (["--provider", "layer=MoonProvider"], ["no provider 'MoonProvider'", "CPUExecutionProvider"]),
        (["--provider", "tail=CPUExecutionProvider"], ["no part has the role 'tail'", "gate, layer, exit"]),
        (["--precision", "int8"], ["precision int8", "it holds: separate-fp32"]),
        (["--layout", "fused"], ["layout fused", "it holds: separate-fp32"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_invalid_option_value(call: Call, package_dir: Path, options: list[str], words: list[str]) -> None:
    assert_named_error(call(main, package_dir, "--text", "Off with her head!", *options), *words)


@pytest.mark.parametrize("options", [["--max-layers", "two"], ["--format", "xml"], ["--exit-threshold", ""]])
def test_option_of_wrong_type(call: Call, package_dir: Path, options: list[str]) -> None:
    run = call(main, package_dir, "--text", "Off with her head!", *options)
    assert run.code == 2 and run.out == "" and options[0] in run.err


# Layouts and precisions


@pytest.mark.parametrize("layout", ["separate", "fused", "single"])
def test_layout(call: Call, layouts_dir: Path, classifier: SmartBert, layout: str) -> None:
    rows = infer(call, layouts_dir, "--layout", layout, "--no-skip", "--exit-threshold", "0.9")
    policy = Policy(exit_threshold=0.9, no_skip=True)
    for row, prediction in zip(rows, classifier.classify(SENTENCES, policy=policy), strict=True):
        expected = prediction.to_dict()
        for key in ("label", "layers_run", "layers_skipped", "exit_layer"):
            assert row[key] == expected[key], (key, row)
    run = call(main, layouts_dir, "--text", "Off with her head!", "--layout", layout, "--verbose")
    assert f" threads, {layout}-fp32\n" in run.err


def test_precision(call: Call, layouts_dir: Path) -> None:
    run = call(main, layouts_dir, "--text", "Off with her head!", "--precision", "int8", "--verbose")
    assert run.code == 0 and ", separate-int8\n" in run.err
    whole, rounded = (infer(call, layouts_dir, "--precision", precision) for precision in ("fp32", "int8"))
    assert sum(one["label"] != other["label"] for one, other in zip(whole, rounded, strict=True)) <= 1
    assert any(
        one["score"] != pytest.approx(other["score"], abs=1e-4) for one, other in zip(whole, rounded, strict=True)
    )


def test_max_layers_with_fused_and_single(call: Call, layouts_dir: Path) -> None:
    for row in infer(call, layouts_dir, "--layout", "fused", "--max-layers", "2"):
        assert len(row["layers_run"]) <= 2
    run = call(main, layouts_dir, "--text", "a", "--layout", "single", "--max-layers", "2")
    assert_named_error(run, "'single'", "knows no max_layers", "--layout")


def test_trace_of_the_single_graph(call: Call, layouts_dir: Path) -> None:
    run = call(main, layouts_dir, "--text", "Down, down, down.", "--layout", "single", "--trace")
    assert run.code == 0
    *layers, others = re.sub(r"\d+\.\d\d ms", "TIME", run.err).splitlines()
    assert layers == [
        "    layer 1: skipped",
        "    layer 2: skipped",
        "    layer 3: run",
        "    layer 4: skipped  answers",
    ]
    assert others == "    tokenizer TIME, model TIME"


@pytest.mark.parametrize("options", [["--precision", "int4"], ["--layout", "double"]], ids=" ".join)
def test_missing_variant(call: Call, layouts_dir: Path, options: list[str]) -> None:
    run = call(main, layouts_dir, "--text", "a", *options)
    assert_named_error(run, f"{options[0][2:]} {options[1]}", "it holds: " + ", ".join(VARIANTS))
