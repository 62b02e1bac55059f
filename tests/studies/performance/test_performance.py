"""The performance studies on the tiny checkpoint: their tables and their conditions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from studies.performance.export_cost import measure_export
from studies.performance.int8_accuracy import compare_int8
from studies.performance.layouts_table import make_table
from studies.performance.quantization_rivals import compare_schemes
from tests.conftest import SENTENCES


@pytest.fixture(scope="module")
def texts_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("texts") / "dev.tsv"
    file.write_text("text\n" + "\n".join(SENTENCES) + "\n", encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def fused_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """A package with the layout fused in fp32; read only."""
    folder = tmp_path_factory.mktemp("fused") / "out"
    export_package(checkpoint_dir, folder, ExportOptions(graphs=GraphOptions(layouts=("fused",))))
    return folder


def rows(output: str) -> dict[str, list[str]]:
    """The table's cells by the first one, without the two header lines."""
    lines = [line.strip("| ").split(" | ") for line in output.splitlines() if line.startswith("| ")]
    return {first.strip(): [cell.strip() for cell in rest] for first, *rest in lines[1:]}


def test_our_int8_ignores_the_batch(checkpoint_dir: Path, texts_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare_schemes(checkpoint_dir, texts_file, repeats=1)
    output = capsys.readouterr().out
    found = rows(output)
    ours, dynamic = "int8, per-token scale (ours)", "quantize_dynamic, per channel"
    static = "int8, fixed scales (ours)"
    assert list(found) == ["fp32", ours, dynamic, "MatMulNBits, 8 bits", static]
    batch_effect = {name: float(cells[3]) for name, cells in found.items()}
    assert max(batch_effect[ours], batch_effect[static]) < 1e-4 < batch_effect[dynamic]
    assert found["fp32"][1:3] == ["100.00%", "100.00%"]
    for condition in (f"{len(SENTENCES)} texts", "threads", "onnxruntime", "Python"):
        assert condition in output


def test_deciding_against_the_layer(layouts_dir: Path, texts_file: Path, tmp_path: Path) -> None:
    saved = tmp_path / "deciding.jsonl"
    options = ("--file", texts_file, "--tokens", "8,16", "--threads", "1", "--repeats", "1", "--save", saved)
    output = in_a_process("deciding", layouts_dir, *options)
    record = json.loads(saved.read_text(encoding="utf-8"))
    assert list(rows(output)) == ["8", "16"] and "onnxruntime" in output
    assert record["layer"] == 2 and all(record[length]["block_us"] > 0.0 for length in ("8", "16"))


def test_int8_accuracy_of_every_scheme(
    checkpoint_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = json.loads((checkpoint_dir / "config.json").read_text(encoding="utf-8"))["id2label"]
    labeled, saved = tmp_path / "labeled.tsv", tmp_path / "saved.jsonl"
    lines = [f"{text}\t{labels[str(row % len(labels))]}" for row, text in enumerate(SENTENCES)]
    labeled.write_text("text\tlabel\n" + "\n".join(lines) + "\n", encoding="utf-8")
    compare_int8(checkpoint_dir, [labeled], scales_file=labeled, repeats=1, save=saved)
    output = capsys.readouterr().out
    found = rows(output)
    assert found["fp32"][1:3] == ["100.00%", "0.0000"]
    assert {"fixed, whole range", "fixed, smoothed", "per token", "package, own policy"} < set(found)
    record = json.loads(saved.read_text(encoding="utf-8"))
    assert record["texts"] == len(SENTENCES) and set(record["rows"]) == set(found)
    assert 0.0 < record["rows"]["per token"]["change"] < 0.1
    assert "onnxruntime" in output and "Pooled over every line" in output


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_export_cost_by_step(checkpoint_dir: Path, texts_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    measure_export(checkpoint_dir, texts_file, layout=["separate"], precision=["fp32"])
    output = capsys.readouterr().out
    found = rows(output)
    assert list(found) == ["reading", "comparing", "recording", "tracing", "counting", "writing", "checking"]
    assert all(float(seconds) >= 0.0 for seconds, _ in found.values())
    assert "separate, fp32:" in output
    for condition in ("cores", "torch", "onnxruntime", "Python"):
        assert condition in output


def test_layouts_table_rows(checkpoint_dir: Path, texts_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_table(checkpoint_dir, texts_file, fixed_shape="1,8", layout=["fused"], precision=["fp32", "int8"], repeats=1)
    output = capsys.readouterr().out
    lines = [line for line in output.splitlines() if line.startswith("| fused")]
    assert [line.split(" | ")[1] for line in lines] == ["fp32", "int8"]
    assert lines[0].split(" | ")[6:8] == ["100.00%", "100.00%"]
    for condition in ("texts of", "threads", "int8 for", "onnxruntime", "Python"):
        assert condition in output


def in_a_process(study: str, *arguments: str | Path) -> str:
    """What a study prints; in its own process, because it shares a thread pool for the whole process."""
    command = [sys.executable, "-m", f"studies.performance.{study}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_speed_in_time_and_computation(checkpoint_dir: Path, fused_dir: Path, texts_file: Path, tmp_path: Path) -> None:
    saved = tmp_path / "speed.jsonl"
    options = ("--checkpoint", checkpoint_dir, "--file", texts_file, "--tokens", "4,16", "--repeats", "1")
    output = in_a_process("speed", fused_dir, *options, "--threads", "1", "--save", saved)
    found = json.loads(saved.read_text(encoding="utf-8"))
    assert list(found["overhead"]) == ["4", "16"]
    for row in found["overhead"].values():
        for ratio in (row["ratio"],):
            assert ratio["low"] <= ratio["value"] <= ratio["high"]
        assert row["plain_ms"] > 0.0 < row["fused_ms"]
    batches = [(row["batch_size"], row["texts"]) for row in found["savings"]]
    assert batches == [(1, len(SENTENCES)), (32, len(SENTENCES))], "no text of the tiny model is long"
    for row in found["savings"]:
        assert row["macs"] > 1.0, "texts that skip or exit cost less"
        assert row["kept"] == pytest.approx(row["clock"]["value"] / row["macs"])
    assert "1 threads" in output and "onnxruntime" in output


def test_scale_rows(fused_dir: Path, texts_file: Path, tmp_path: Path) -> None:
    saved = tmp_path / "scale.jsonl"
    options = ("--file", texts_file, "--counts", "50,200", "--imports", "1", "--save", saved)
    output = in_a_process("scale", fused_dir, *options)
    found = rows(output)
    assert list(found) == ["50", "200"]
    line = json.loads(saved.read_text(encoding="utf-8"))
    assert [row["texts"] for row in line["scale"]] == [50, 200] and line["conditions"] in output
    assert line["import_ms"]["smartbert_runtime"] > 0.0
    assert all(float(milliseconds) > 0.0 for milliseconds, _ in found.values())
    assert "smartbert_runtime" in output and "onnxruntime" in output


def test_memory_of_every_setting(fused_dir: Path, texts_file: Path, tmp_path: Path) -> None:
    saved = tmp_path / "memory.jsonl"
    options = ("--file", texts_file, "--repeats", "1", "--texts", "5", "--save", saved)
    output = in_a_process("memory", fused_dir, *options)
    found = rows(output)
    assert list(json.loads(saved.read_text(encoding="utf-8"))["memory"]) == list(found)
    assert next(iter(found)) == "as shipped" and len(found) == 5
    for loaded, after, most, _ in found.values():
        assert 20.0 < float(loaded) <= float(most) >= float(after)
