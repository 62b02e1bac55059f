"""smartbert-inspect: the folder's contents as text and as JSON, operator coverage, and named errors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from smartbert_runtime.cli.inspect import main
from tests.cli.conftest import Call
from tests.helpers import assert_named_error, edit_manifest
from tests.package_folders import VARIANTS, flip_byte

PARTS = ["embeddings", *[f"{role}_0{layer}" for layer in (1, 2, 3, 4) for role in ("gate", "layer", "exit")]]


def document(out: str) -> dict[str, Any]:
    """stdout holds one JSON document and nothing else."""
    assert len(out.splitlines()) == 1
    loaded: dict[str, Any] = json.loads(out)
    return loaded


def inspected(call: Call, folder: Path, *options: str) -> list[str]:
    run = call(main, folder, *options)
    assert run.code == 0 and run.err == ""
    return run.out.splitlines()


def test_text_report(call: Call, package_dir: Path) -> None:
    lines = inspected(call, package_dir)
    assert lines[0] == "bert, 4 layers of 32, up to 24 tokens, dynamic batch and length"
    assert lines[1] == "labels      calm, loud, odd"
    assert lines[2].split()[0] == "checkpoint" and len(lines[2].split()[1]) == 64
    assert lines[3].startswith("made with   smartbert ") and ", torch " in lines[3]
    size = sum(file.stat().st_size for file in (package_dir / "graphs").iterdir())
    assert lines[4:8] == [
        "",
        f"separate-fp32: {size / 1e6:.1f} MB of graphs",
        "  preset default: skips a layer at skip probability 0.5, answers at normalized entropy below 0.5",
        "  preset full-depth: skips no layer, never exits early",
    ]
    assert [line.split()[0] for line in lines[8::2]] == PARTS
    for line, part in zip(lines[8::2], PARTS, strict=True):
        content = (package_dir / "graphs" / f"{part}.onnx").read_bytes()
        assert line.split()[1:] == [
            f"{len(content) / 1000:.0f}",
            "kB",
            f"graphs/{part}.onnx",
            "sha256",
            hashlib.sha256(content).hexdigest()[:12],
        ]
    assert lines[9] == (
        "    input_ids (batch,sequence), attention_mask (batch,sequence), token_type_ids (batch,sequence)"
        " -> hidden (batch,sequence,32), mask (batch,1,1,sequence)"
    )
    assert lines[11] == "    hidden (batch,sequence,32), mask (batch,1,1,sequence) -> skip_logit (batch)"


def test_text_shows_every_variant(call: Call, layouts_dir: Path) -> None:
    lines = inspected(call, layouts_dir)
    assert [line.split(":")[0] for line in lines if line.endswith("MB of graphs")] == VARIANTS
    assert [line.split()[0] for line in lines if "graphs/model" in line] == ["model", "model"]
    assert "graphs/layer_02.int8.onnx" in "\n".join(lines)


def test_fixed_shape(call: Call, package_copy: Path) -> None:
    edit_manifest(package_copy, lambda manifest: manifest["model"].update(fixed_shape=[2, 24]))
    assert inspected(call, package_copy)[0] == "bert, 4 layers of 32, up to 24 tokens, fixed shape 2,24"


def test_json_report(call: Call, layouts_dir: Path) -> None:
    (line,) = inspected(call, layouts_dir, "--format", "json")
    found = document(line)
    assert set(found) == {
        "family", "layers", "hidden_size", "max_length", "fixed_shape", "labels", "checkpoint_sha256", "packages",
        "variants", "notes",
    }  # fmt: skip
    assert (found["layers"], found["labels"], found["fixed_shape"]) == (4, ["calm", "loud", "odd"], None)
    assert [facts["variant"]["name"] for facts in found["variants"]] == VARIANTS
    separate = found["variants"][0]
    assert [part["part"] for part in separate["parts"]] == PARTS
    assert separate["presets"]["default"]["exit_threshold"] == 0.5
    assert separate["bytes"] == sum(part["bytes"] for part in separate["parts"])
    for part in separate["parts"]:
        assert part["sha256"] == hashlib.sha256((layouts_dir / part["file"]).read_bytes()).hexdigest()
        assert part["placement"] == {}


def test_ops_shows_operator_coverage(call: Call, package_dir: Path) -> None:
    lines = inspected(call, package_dir, "--ops")
    at = lines.index(next(line for line in lines if line.startswith("  layer_02")))
    here, *phones = lines[at + 1 : at + 5]
    assert here.startswith("    here: ") and here.endswith(" nodes on CPUExecutionProvider")
    names = ["CoreMLExecutionProvider (MLProgram)", "CoreMLExecutionProvider (NeuralNetwork)", "NnapiExecutionProvider"]
    for line, name in zip(phones, names, strict=True):
        assert line.startswith(f"    {name}: ")
        taken, of, nodes, word = line.rsplit(": ", 1)[1].split()
        assert (of, word) == ("of", "nodes") and 0 <= int(taken) <= int(nodes)
    assert sum("here: " in line for line in lines) == len(PARTS)
    assert (
        lines[-1]
        == "CoreML and NNAPI: operator coverage by onnxruntime's usability checker at export, not seen on a device"
    )
    assert not any(" -> " in line for line in lines)


def test_ops_in_json(call: Call, package_dir: Path) -> None:
    (line,) = inspected(call, package_dir, "--ops", "--format", "json", "--provider", "CPUExecutionProvider")
    for part in document(line)["variants"][0]["parts"]:
        assert list(part["placement"]) == ["CPUExecutionProvider"] and part["placement"]["CPUExecutionProvider"] > 5
        assert len(part["coverage"]) == 3


def test_ops_with_provider_for_one_role(call: Call, package_dir: Path) -> None:
    usual = inspected(call, package_dir, "--ops")
    assert inspected(call, package_dir, "--ops", "--provider", "layer=CPUExecutionProvider") == usual
    run = call(main, package_dir, "--ops", "--provider", "tail=CPUExecutionProvider")
    assert_named_error(run, "no part has the role 'tail'", "roles: embeddings, gate, layer")


def test_unknown_provider(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--ops", "--provider", "MoonProvider")
    assert_named_error(run, "no provider 'MoonProvider'", "available: ", "CPUExecutionProvider")


@pytest.mark.parametrize("file", ["manifest.json", "manifest.sha256", "policy.json", "graphs/layer_03.onnx"])
def test_missing_file(call: Call, package_copy: Path, file: str) -> None:
    (package_copy / file).unlink()
    assert_named_error(call(main, package_copy), file)


def test_truncated_graph(call: Call, package_copy: Path) -> None:
    graph = package_copy / "graphs" / "gate_02.onnx"
    graph.write_bytes(graph.read_bytes()[:-1])
    assert_named_error(call(main, package_copy), "graphs/gate_02.onnx has ", "the manifest says ")


def test_changed_graph(call: Call, package_copy: Path) -> None:
    flip_byte(package_copy / "graphs" / "gate_02.onnx", 500)
    assert_named_error(call(main, package_copy, "--ops"), "graphs/gate_02.onnx does not match the manifest (sha256 ")


def test_edited_policy(call: Call, package_copy: Path) -> None:
    file = package_copy / "policy.json"
    file.write_text(file.read_text(encoding="utf-8").replace("0.5", "0.6"), encoding="utf-8")
    assert_named_error(call(main, package_copy), "policy.json was changed by hand or is damaged")


def test_folder_is_not_a_package(call: Call, checkpoint_dir: Path, tmp_path: Path) -> None:
    assert_named_error(call(main, checkpoint_dir), "holds no readable manifest.json", "smartbert-export")
    assert_named_error(call(main, tmp_path / "nowhere"), "nowhere is not a folder")


def test_newer_schema_is_noted(call: Call, package_copy: Path) -> None:
    edit_manifest(package_copy, lambda manifest: manifest.update(schema_version="1.7", color="red"))
    run = call(main, package_copy)
    assert run.code == 0
    assert "note: schema 1.7: ignored the unknown key manifest.color" in run.out + run.err
    run = call(main, package_copy, "--format", "json")
    assert document(run.out)["notes"] == ["schema 1.7: ignored the unknown key manifest.color"]
