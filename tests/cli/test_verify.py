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

PARTS = ["embeddings", *[f"{role}_0{layer}" for layer in (1, 2, 3, 4) for role in ("gate", "layer", "exit")]]


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def document(out: str) -> dict[str, Any]:
    """stdout holds one JSON document and nothing else."""
    assert len(out.splitlines()) == 1
    loaded: dict[str, Any] = json.loads(out, parse_constant=refuse)
    return loaded


def test_a_good_package_passes_and_every_part_is_shown(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir)
    assert run.code == 0
    lines = run.out.splitlines()
    assert lines[0] == "separate-fp32 against the recorded PyTorch answers"
    assert [line.split()[0] for line in lines[1:14]] == PARTS
    assert all("max difference" in line and line.endswith("ok") for line in lines[1:14])
    assert [line.split(":")[0].strip()[:12] for line in lines[14:16]] == ["texts one by", "texts in bat"]
    assert all("24 texts, 0 with other decisions" in line and line.endswith("ok") for line in lines[14:16])
    assert lines[16:] == ["parity: good"]
    assert run.err.splitlines() == PARTS


def test_json_is_one_document_with_every_comparison(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--format", "json")
    report = document(run.out)
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


def test_one_part_alone_can_be_checked(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--part", "layer_03")
    assert run.code == 0 and run.err == "layer_03\n"
    lines = run.out.splitlines()
    assert len(lines) == 3 and lines[1].split()[0] == "layer_03" and lines[2] == "parity: good"


def test_an_unknown_part_lists_those_there_are(call: Call, package_dir: Path) -> None:
    assert_named_error(call(main, package_dir, "--part", "layer_99"), "no part 'layer_99'", "layer_04, exit_04")


@pytest.mark.parametrize("format", ["text", "json"])
def test_two_layers_exchanged_exit_with_3_and_name_the_first(call: Call, package_copy: Path, format: str) -> None:
    swap_files(package_copy, "graphs/layer_02.onnx", "graphs/layer_04.onnx")
    run = call(main, package_copy, "--format", format)
    assert_named_error(run, "error: layer_02 differs from the recorded PyTorch answers", "is allowed", code=3)
    if format == "json":
        assert document(run.out)["first_failure"] == "layer_02"
    else:
        differ = [line.split()[0] for line in run.out.splitlines() if line.endswith("DIFFERS")]
        assert differ[:2] == ["layer_02", "layer_04"]
        assert run.out.splitlines()[-1] == "parity: layer_02 differs"


def test_a_weight_off_by_one_percent_exits_with_3(call: Call, package_copy: Path) -> None:
    change_weight(package_copy, "layer_02", "layer.attention.self.value.weight", lambda array: array * 1.01)
    assert_named_error(call(main, package_copy), "error: layer_02 differs", "hint: ", code=3)
    assert call(main, package_copy, "--part", "layer_01").code == 0
    assert_named_error(call(main, package_copy, "--part", "layer_02"), "error: layer_02 differs", code=3)


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_report_stays_readable_when_every_text_is_decided_otherwise(
    call: Call, package_copy: Path, format: str
) -> None:
    change_weight(package_copy, "gate_01", "decide.bias", lambda array: array + 1000.0)
    change_weight(package_copy, "gate_02", "decide.bias", lambda array: array + 1000.0)
    change_weight(package_copy, "gate_03", "decide.bias", lambda array: array + 1000.0)
    run = call(main, package_copy, "--format", format)
    assert_named_error(run, "error: gate_01 differs", code=3)
    if format == "json":
        report = document(run.out)
        assert [len(check["decisions"]["different"]) for check in report["texts"]] == [24, 24]
    else:
        assert "24 texts, 24 with other decisions" in run.out and "text 1 decided otherwise" in run.out


def test_against_the_checkpoint_asks_pytorch_anew(call: Call, package_dir: Path, checkpoint_dir: Path) -> None:
    run = call(main, package_dir, "--against", checkpoint_dir)
    assert run.code == 0
    assert run.out.splitlines()[0] == "separate-fp32 against PyTorch"
    assert run.out.splitlines()[-1] == "parity: good"
    assert "asking PyTorch for 24 texts" in run.err


def test_against_with_a_file_compares_its_texts(
    call: Call, package_dir: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    file = tmp_path / "dev.tsv"
    file.write_text("sentence\tlabel\n" + "".join(f"{t}\todd\n" for t in SENTENCES[3:10]), encoding="utf-8")
    run = call(main, package_dir, "--against", checkpoint_dir, "--file", file, "--format", "json")
    assert run.code == 0
    assert [check["decisions"]["texts"] for check in document(run.out)["texts"]] == [7, 7]


def test_against_another_checkpoint_fails_by_name(
    call: Call, package_dir: Path, checkpoint_dir: Path, tmp_path: Path
) -> None:
    other = shutil.copytree(checkpoint_dir, tmp_path / "ckpt")
    make_model(seed=9).save_pretrained(other)
    run = call(main, package_dir, "--against", other)
    assert_named_error(run, "error: embeddings differs from PyTorch", code=3)


def test_against_finds_the_one_layer_that_was_trained_on(call: Call, package_copy: Path, checkpoint_dir: Path) -> None:
    change_weight(package_copy, "layer_03", "layer.output.dense.weight", lambda array: array * 1.01)
    run = call(main, package_copy, "--against", checkpoint_dir)
    assert_named_error(run, "error: layer_03 differs from PyTorch", code=3)


def test_file_needs_against(call: Call, package_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "dev.txt").write_text("fine\n", encoding="utf-8")
    assert_named_error(call(main, package_dir, "--file", tmp_path / "dev.txt"), "--file needs --against")


def test_against_a_folder_that_is_no_checkpoint_is_a_named_error(call: Call, package_dir: Path, tmp_path: Path) -> None:
    assert_named_error(call(main, package_dir, "--against", tmp_path), "is not a checkpoint: it has no config.json")


def test_an_unknown_provider_lists_those_there_are(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--provider", "MoonProvider")
    assert_named_error(run, "no provider 'MoonProvider'", "CPUExecutionProvider")
