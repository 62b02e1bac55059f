"""smartbert-verify: the recorded answers and PyTorch's own, one part or all, and exit code 3 naming what differs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from smartbert_export.cli.verify import main
from tests.cli.conftest import Call
from tests.conftest import SENTENCES, make_model
from tests.helpers import assert_named_error, change_weight, swap_files
from tests.package_folders import VARIANTS, read_manifest, scale_weight

PARTS = ["embeddings", *[f"{role}_0{layer}" for layer in (1, 2, 3, 4) for role in ("gate", "layer", "exit")]]


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def document(out: str) -> dict[str, Any]:
    """stdout holds one JSON document and nothing else."""
    assert len(out.splitlines()) == 1
    loaded: dict[str, Any] = json.loads(out, parse_constant=refuse)
    return loaded


def test_good_package(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir)
    assert run.code == 0
    lines = run.out.splitlines()
    assert lines[0] == "separate-fp32 against the recorded PyTorch answers"
    assert [line.split()[0] for line in lines[1:14]] == PARTS
    assert all("max difference" in line and line.endswith("ok") for line in lines[1:14])
    assert [line.split(":")[0].strip()[:12] for line in lines[14:16]] == ["texts one by", "texts in bat"]
    assert all("24 texts, 0 with other decisions" in line and line.endswith("ok") for line in lines[14:16])
    assert lines[16:] == ["parity: good"]
    assert run.err.splitlines() == [f"checking {part} (separate-fp32)" for part in PARTS]


def test_json_report(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--format", "json")
    (report,) = document(run.out)["variants"]
    assert run.code == 0 and report["first_failure"] is None
    assert (report["variant"], report["oracle"]) == ("separate-fp32", "the recorded PyTorch answers")
    assert [check["part"] for check in report["parts"]] == PARTS
    for check in report["parts"]:
        found = check["difference"]
        assert 0.0 <= found["mean_abs"] <= found["max_abs"] <= found["tolerance"]
    assert len(report["texts"]) == 2
    for check in report["texts"]:
        decisions = check["decisions"]
        assert (decisions["texts"], decisions["different"], decisions["near"]) == (24, [], [])
        assert decisions["label_agreement"] == 1.0 and decisions["nearest_margin"] > 1e-4
        assert decisions["logits"]["max_abs"] <= 1e-4 == decisions["logits"]["tolerance"]


def test_one_part(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--part", "layer_03")
    assert run.code == 0 and run.err == "checking layer_03 (separate-fp32)\n"
    lines = run.out.splitlines()
    assert len(lines) == 3 and lines[1].split()[0] == "layer_03" and lines[2] == "parity: good"


def test_unknown_part(call: Call, package_dir: Path) -> None:
    assert_named_error(call(main, package_dir, "--part", "layer_99"), "no part 'layer_99'", "layer_04, exit_04")


@pytest.mark.parametrize("format", ["text", "json"])
def test_swapped_layers(call: Call, package_copy: Path, format: str) -> None:
    swap_files(package_copy, "graphs/layer_02.onnx", "graphs/layer_04.onnx")
    run = call(main, package_copy, "--format", format)
    assert_named_error(run, "error: layer_02 differs from the recorded PyTorch answers", "is allowed", code=3)
    if format == "json":
        assert document(run.out)["variants"][0]["first_failure"] == "layer_02"
    else:
        differ = [line.split()[0] for line in run.out.splitlines() if line.endswith("DIFFERS")]
        assert differ[:2] == ["layer_02", "layer_04"]
        assert run.out.splitlines()[-1] == "parity: layer_02 differs"


def test_weight_off_by_one_percent(call: Call, package_copy: Path) -> None:
    change_weight(package_copy, "layer_02", "layer.attention.self.value.weight", lambda array: array * 1.01)
    assert_named_error(call(main, package_copy), "error: layer_02 differs", "hint: ", code=3)
    assert call(main, package_copy, "--part", "layer_01").code == 0
    assert_named_error(call(main, package_copy, "--part", "layer_02"), "error: layer_02 differs", code=3)


@pytest.mark.parametrize("format", ["text", "json"])
def test_every_decision_differs(call: Call, package_copy: Path, format: str) -> None:
    change_weight(package_copy, "gate_01", "read.take.0.bias", lambda array: array + 1000.0)
    change_weight(package_copy, "gate_02", "read.take.0.bias", lambda array: array + 1000.0)
    change_weight(package_copy, "gate_03", "read.take.0.bias", lambda array: array + 1000.0)
    run = call(main, package_copy, "--format", format)
    assert_named_error(run, "error: gate_01 differs", code=3)
    if format == "json":
        (report,) = document(run.out)["variants"]
        assert [len(check["decisions"]["different"]) for check in report["texts"]] == [24, 24]
    else:
        assert "24 texts, 24 with other decisions" in run.out and "text 1 has other decisions" in run.out


def test_against_checkpoint(call: Call, package_dir: Path, checkpoint_dir: Path) -> None:
    run = call(main, package_dir, "--against", checkpoint_dir)
    assert run.code == 0
    assert run.out.splitlines()[0] == "separate-fp32 against PyTorch"
    assert run.out.splitlines()[-1] == "parity: good"
    assert "running 24 texts in PyTorch" in run.err


def test_against_checkpoint_with_file(call: Call, package_dir: Path, checkpoint_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "dev.tsv"
    file.write_text("sentence\tlabel\n" + "".join(f"{t}\todd\n" for t in SENTENCES[3:10]), encoding="utf-8")
    run = call(main, package_dir, "--against", checkpoint_dir, "--file", file, "--format", "json")
    assert run.code == 0
    assert [check["decisions"]["texts"] for check in document(run.out)["variants"][0]["texts"]] == [7, 7]


def test_against_another_checkpoint(call: Call, package_dir: Path, checkpoint_dir: Path, tmp_path: Path) -> None:
    other = shutil.copytree(checkpoint_dir, tmp_path / "ckpt")
    make_model(seed=9).save_pretrained(other)
    run = call(main, package_dir, "--against", other)
    assert_named_error(run, "error: embeddings differs from PyTorch", code=3)


def test_against_names_the_changed_layer(call: Call, package_copy: Path, checkpoint_dir: Path) -> None:
    change_weight(package_copy, "layer_03", "layer.output.dense.weight", lambda array: array * 1.01)
    run = call(main, package_copy, "--against", checkpoint_dir)
    assert_named_error(run, "error: layer_03 differs from PyTorch", code=3)


def test_file_needs_against(call: Call, package_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text("fine\n", encoding="utf-8")
    assert_named_error(call(main, package_dir, "--file", tmp_path / "dev.txt"), "--file needs --against")


def test_against_folder_without_checkpoint(call: Call, package_dir: Path, tmp_path: Path) -> None:
    assert_named_error(call(main, package_dir, "--against", tmp_path), "is not a checkpoint: it has no config.json")


def test_unknown_provider(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--provider", "MoonProvider")
    assert_named_error(run, "no provider 'MoonProvider'", "CPUExecutionProvider")


# Variants


def checked(out: str) -> list[str]:
    """The variants of a report printed as text."""
    return [line.split()[0] for line in out.splitlines() if " against " in line]


def test_every_variant(call: Call, layouts_dir: Path) -> None:
    run = call(main, layouts_dir)
    assert run.code == 0 and checked(run.out) == VARIANTS
    assert run.out.count("parity: good") == len(VARIANTS) and "DIFFERS" not in run.out
    reports = document(call(main, layouts_dir, "--format", "json").out)["variants"]
    assert [report["variant"] for report in reports] == VARIANTS
    assert [len(report["parts"]) for report in reports] == [13, 13, 10, 10, 0, 0]
    assert [len(report["texts"]) for report in reports] == [2, 2, 2, 2, 1, 1]
    assert {report["first_failure"] for report in reports} == {None}


@pytest.mark.parametrize(
    ("options", "variants"),
    [
        (["--layout", "fused"], ["fused-fp32", "fused-int8"]),
        (["--layout", "single"], ["single-fp32", "single-int8"]),
        (["--precision", "int8"], ["separate-int8", "fused-int8", "single-int8"]),
        (["--layout", "separate", "--precision", "fp32"], ["separate-fp32"]),
        (["--part", "block_02"], ["fused-fp32", "fused-int8"]),
        (["--part", "gate_02"], ["separate-fp32", "separate-int8", "fused-fp32", "fused-int8"]),
        (["--part", "layer_03", "--precision", "int8"], ["separate-int8"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_options_choose_variants(call: Call, layouts_dir: Path, options: list[str], variants: list[str]) -> None:
    run = call(main, layouts_dir, *options)
    assert run.code == 0 and checked(run.out) == variants
    assert run.out.splitlines()[-1] == "parity: good"
    if "--part" in options:
        assert run.err.splitlines() == [f"checking {options[1]} ({variant})" for variant in variants]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--layout", "double"], ["layout double and precision any", "it holds: " + ", ".join(VARIANTS)]),
        (["--precision", "int4"], ["layout any and precision int4", "it holds: " + ", ".join(VARIANTS)]),
        (["--part", "block_02", "--layout", "separate"], ["block_02 is in none of the variants separate-fp32, "]),
        (["--part", "block_09"], ["no part 'block_09'", "block_04"]),
    ],
    ids=lambda value: " ".join(value[:4]),
)
def test_missing_variant(call: Call, layouts_dir: Path, options: list[str], words: list[str]) -> None:
    assert_named_error(call(main, layouts_dir, *options), *words)


def test_missing_variant_lists_others(call: Call, package_dir: Path) -> None:
    for option, value in (("--layout", "fused"), ("--precision", "int8")):
        assert_named_error(call(main, package_dir, option, value), value, "it holds: separate-fp32")


def test_swapped_quantized_layers(call: Call, layouts_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(layouts_dir, tmp_path / "out"))
    layers = [
        (component["name"], component["files"]["separate-int8"]["file"])
        for component in read_manifest(folder)["components"]
        if component["role"] == "layer" and ".int8." in component["files"]["separate-int8"]["file"]
    ]
    (first, one), *_, (_, other) = layers
    swap_files(folder, one, other)
    run = call(main, folder, "--layout", "separate")
    assert_named_error(run, f"error: {first} differs from the recorded PyTorch answers", code=3)
    assert checked(run.out) == ["separate-fp32", "separate-int8"]
    assert [line for line in run.out.splitlines() if line.startswith("parity")] == [
        "parity: good",
        f"parity: {first} differs",
    ]
    assert call(main, folder, "--precision", "fp32").code == 0


def test_damage_to_one_layout(call: Call, layouts_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(layouts_dir, tmp_path / "out"))
    scale_weight(folder, "block_02", "heads.project.weight", 1.01)
    assert_named_error(call(main, folder, "--precision", "fp32"), "error: block_02 differs from the recorded", code=3)
    assert_named_error(call(main, folder, "--part", "block_02"), "error: block_02 differs", code=3)
    assert call(main, folder, "--layout", "separate").code == 0
    scale_weight(folder, "model", "block_02/heads.classify.weight", -1.0)
    run = call(main, folder, "--layout", "single", "--precision", "fp32")
    assert_named_error(run, "error: model.onnx, text by text: answers differ", code=3)


def test_against_checkpoint_every_variant(call: Call, layouts_dir: Path, checkpoint_dir: Path) -> None:
    run = call(main, layouts_dir, "--against", checkpoint_dir)
    assert run.code == 0
    assert [line for line in run.out.splitlines() if " against " in line] == [
        f"{variant} against PyTorch" for variant in VARIANTS
    ]
    assert run.err.count("running 24 texts in PyTorch") == 1
