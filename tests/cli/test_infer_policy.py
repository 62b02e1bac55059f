"""smartbert-infer's options that steer: presets, thresholds, no-skip, no-exit, max-layers, and what must not matter."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from smartbert_runtime import Policy, SmartBert
from smartbert_runtime.cli.infer import main
from tests.cli.conftest import Call
from tests.conftest import SENTENCES
from tests.helpers import assert_named_error
from tests.runtime.packages import VARIANTS, export_layouts

TEXTS = [argument for text in SENTENCES for argument in ("--text", text)]


@pytest.fixture(scope="module")
def layouts_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    return export_layouts(tmp_path_factory.getbasetemp(), checkpoint_dir)


def ask(call: Call, package: Path, *options: str) -> list[dict[str, Any]]:
    run = call(main, package, *TEXTS, "--format", "json", *options)
    assert run.code == 0, run.err
    return [json.loads(line) for line in run.out.splitlines()]


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        (["--preset", "default"], Policy(exit_threshold=0.5)),
        (["--preset", "full-depth"], Policy(no_skip=True, no_exit=True)),
        (["--exit-threshold", "0.9"], Policy(exit_threshold=0.9)),
        (["--exit-threshold", "0"], Policy(exit_threshold=0.0)),
        (["--rule", "patience", "--patience", "1"], Policy(rule="patience", patience=1, exit_threshold=0.5)),
        (["--rule", "max-probability"], Policy(rule="max-probability", exit_threshold=0.5)),
        (["--exit-thresholds", "0,0.9,0,0"], Policy(exit_threshold=0.5, exit_thresholds=(0.0, 0.9, 0.0, 0.0))),
        (["--deadline-ms", "1e6"], Policy(exit_threshold=0.5, deadline_ms=1e6)),
        (["--skip-threshold", "0.3"], Policy(exit_threshold=0.5, skip_threshold=0.3)),
        (["--no-skip"], Policy(exit_threshold=0.5, no_skip=True)),
        (["--no-exit"], Policy(exit_threshold=0.5, no_exit=True)),
        (["--max-layers", "2"], Policy(exit_threshold=0.5, max_layers=2)),
        (["--preset", "full-depth", "--max-layers", "3"], Policy(no_skip=True, no_exit=True, max_layers=3)),
        (["--no-skip", "--exit-threshold", "1"], Policy(exit_threshold=1.0, no_skip=True)),
    ],
)
def test_an_option_steers_as_the_library_does(
    call: Call, package_dir: Path, classifier: SmartBert, options: list[str], policy: Policy
) -> None:
    rows = ask(call, package_dir, *options)
    for row, prediction in zip(rows, classifier.classify(SENTENCES, policy=policy), strict=True):
        assert (row["layers_run"], row["layers_skipped"], row["exit_layer"]) == (
            list(prediction.layers_run),
            list(prediction.layers_skipped),
            prediction.exit_layer,
        )


def test_full_depth_runs_all_layers(call: Call, package_dir: Path) -> None:
    for row in ask(call, package_dir, "--preset", "full-depth"):
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
def test_how_it_is_run_changes_no_answer(call: Call, package_dir: Path, options: list[str]) -> None:
    usual, other = ask(call, package_dir), ask(call, package_dir, *options)
    for one, two in zip(usual, other, strict=True):
        assert one["probabilities"] == pytest.approx(two["probabilities"], abs=1e-5)
        assert [one[key] for key in ("label", "exit_layer", "layers_run", "layers_skipped")] == [
            two[key] for key in ("label", "exit_layer", "layers_run", "layers_skipped")
        ]


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
def test_an_option_that_cannot_be_meant_is_named(
    call: Call, package_dir: Path, options: list[str], words: list[str]
) -> None:
    assert_named_error(call(main, package_dir, "--text", "Off with her head!", *options), *words)


@pytest.mark.parametrize("options", [["--max-layers", "two"], ["--format", "xml"], ["--exit-threshold", ""]])
def test_an_option_of_the_wrong_kind_is_a_usage_error(call: Call, package_dir: Path, options: list[str]) -> None:
    run = call(main, package_dir, "--text", "Off with her head!", *options)
    assert run.code == 2 and run.out == "" and options[0] in run.err


# Layouts and precisions


@pytest.mark.parametrize(
    ("options", "policy"),
    [
        ([], Policy(exit_threshold=0.5)),
        (["--preset", "full-depth"], Policy(no_skip=True, no_exit=True)),
        (["--no-skip", "--exit-threshold", "0.9"], Policy(exit_threshold=0.9, no_skip=True)),
        (["--no-exit", "--skip-threshold", "0.3"], Policy(skip_threshold=0.3, no_exit=True)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("layout", ["separate", "fused", "single"])
def test_an_option_steers_every_layout_alike(
    call: Call, layouts_dir: Path, classifier: SmartBert, layout: str, options: list[str], policy: Policy
) -> None:
    rows = ask(call, layouts_dir, "--layout", layout, *options)
    for row, prediction in zip(rows, classifier.classify(SENTENCES, policy=policy), strict=True):
        expected = prediction.as_dict(row["index"])
        for key in ("label", "layers_run", "layers_skipped", "exit_layer"):
            assert row[key] == expected[key], (key, row)


def test_precision_chooses_the_graphs_that_answer(call: Call, layouts_dir: Path) -> None:
    run = call(main, layouts_dir, "--text", "Off with her head!", "--precision", "int8", "--verbose")
    assert run.code == 0 and ", separate-int8\n" in run.err
    whole, rounded = (ask(call, layouts_dir, "--precision", precision) for precision in ("fp32", "int8"))
    assert sum(one["label"] != other["label"] for one, other in zip(whole, rounded, strict=True)) <= 1
    assert any(
        one["score"] != pytest.approx(other["score"], abs=1e-4) for one, other in zip(whole, rounded, strict=True)
    )


def test_max_layers_goes_with_fused_and_not_with_single(call: Call, layouts_dir: Path) -> None:
    for row in ask(call, layouts_dir, "--layout", "fused", "--max-layers", "2"):
        assert len(row["layers_run"]) <= 2
    run = call(main, layouts_dir, "--text", "a", "--layout", "single", "--max-layers", "2")
    assert_named_error(run, "'single'", "knows no max_layers", "--layout")


def test_a_trace_of_the_single_graph_says_what_was_run_and_invents_no_number(call: Call, layouts_dir: Path) -> None:
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
def test_a_variant_that_is_not_there_lists_what_is(call: Call, layouts_dir: Path, options: list[str]) -> None:
    run = call(main, layouts_dir, "--text", "a", *options)
    assert_named_error(run, f"{options[0][2:]} {options[1]}", "it holds: " + ", ".join(VARIANTS))
