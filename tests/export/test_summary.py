"""SUMMARY.md, with and without a training report, and the lines that smartbert-export prints."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from smartbert.evaluation.curves import Summary
from smartbert.evaluation.evaluate import Evaluation
from smartbert.evaluation.thresholds import ThresholdChoice
from smartbert.training.report import TrainingReport
from smartbert.training.settings import TrainingSettings
from smartbert_export.quantize.agreement import ALONE, TOGETHER, Agreement, QuantizationReport
from smartbert_export.quantize.losses import LossEstimate
from smartbert_export.summary import export_lines, summary_text
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import read_golden
from smartbert_runtime.parity.verify import verify
from smartbert_runtime.sessions.sessions import Sessions
from tests.conftest import SENTENCES


def dev_summary(accuracy: float, layers_run: float) -> Summary:
    return Summary(
        texts=50,
        accuracy=accuracy,
        f1=0.5,
        matthews=0.25,
        recall={"calm": 0.75, "loud": 1.0},
        mean_layers_run=layers_run,
        skip_rate=(0.0,) * 4,
        exit_rate=(0.0, 0.5, 0.0, 0.5),
        exit_accuracy=(0.5,) * 4,
    )


def dev_evaluation(summary: Summary, full_depth: Summary) -> Evaluation:
    return Evaluation(
        texts=50,
        mean_tokens=12.5,
        layers=4,
        plain_macs=4e6,
        skip_threshold=0.5,
        exit_threshold=0.3,
        summary=summary,
        macs=3e6,
        full_depth=full_depth,
        full_depth_macs=4.1e6,
        curves={},
    )


def test_model_facts(package_dir: Path) -> None:
    text = (package_dir / "SUMMARY.md").read_text(encoding="utf-8")
    manifest = open_package(package_dir).manifest
    assert "- labels: calm, loud, odd\n" in text
    assert "A text classifier of 4 layers (hidden size 32)" in text
    assert "longest input: 24 tokens" in text
    assert "skip probability 0.5 and above, answer at normalized entropy below 0.5" in text
    assert f"- checkpoint sha256: {manifest.provenance.checkpoint_sha256}\n" in text
    assert f"torch {manifest.provenance.packages['torch']}" in text
    assert "The checkpoint carries no training report." in text


def test_parts_table(package_dir: Path) -> None:
    text = (package_dir / "SUMMARY.md").read_text(encoding="utf-8")
    parts = [row for row in rows_of(text, "Parts") if row[0] == "separate-fp32"]
    sizes = {row[1]: row[5] for row in parts}
    graphs = {file.stem: f"{file.stat().st_size / 1000:.0f}" for file in (package_dir / "graphs").iterdir()}
    assert sizes == graphs and len(sizes) == 13
    assert all(row[6].startswith("under ") and row[4] == "fp32" for row in parts)
    gate = next(row for row in parts if row[1] == "gate_02")
    assert gate[2] == "hidden (batch,sequence,32), mask (batch,1,1,sequence)"
    assert gate[3] == "skip_logit (batch)"


def test_parity_table(package_dir: Path) -> None:
    text = (package_dir / "SUMMARY.md").read_text(encoding="utf-8")
    row = r"^\| separate-fp32 \| (texts .*) \| 24 \| 0 \| 100.00% \| 100.00% \| under 1e-04 \|$"
    modes = re.findall(row, text, flags=re.MULTILINE)
    assert len(modes) == 2 and modes[0] == "texts one by one" and "batch" in modes[1]


def test_training_report(package_dir: Path) -> None:
    opened = open_package(package_dir)
    policy = Policy(skip_threshold=0.5, exit_threshold=0.3)
    report = verify(Sessions(opened, opened.manifest.variant()), read_golden(opened), policy, oracle="the recording")
    dev, full_depth = dev_summary(0.92, 2.25), dev_summary(0.94, 3.5)
    training = TrainingReport(
        run="digest",
        base_model="tiny-encoder",
        settings=TrainingSettings(
            stage1_epochs=4, ungated_epochs=0, soft_epochs=1, stage2_epochs=3, seed=11, max_length=24
        ),
        versions={},
        texts={"train": 180, "validation": 20, "dev": 50},
        labels=("calm", "loud"),
        skip_threshold=0.5,
        exit_threshold=0.3,
        exit_threshold_choice=ThresholdChoice(exit_threshold=0.3, texts=20, changed=0, certain=False),
        validation=dev_summary(0.9, 2.0),
        dev=dev,
        dev_full_depth=full_depth,
        dev_evaluation=dev_evaluation(dev, full_depth),
        stage1_log=(),
        stage2_log=(),
    )
    text = summary_text(opened.manifest, policy, (report,), {}, asdict(training))
    assert "Fine-tuned from `tiny-encoder` on 180 texts; thresholds chosen on 20 others" in text
    assert "evaluated in PyTorch on 50 dev texts" in text
    assert "accuracy 0.9200 with 2.25 layers run on average (0.9400 with 3.50 layers when no exit is taken)" in text
    assert "- recall: calm 0.7500, loud 1.0000" in text
    assert "- seed 11, 4 + 3 epochs, texts cut to 24 tokens" in text
    assert "answer at normalized entropy below 0.3" in text
    assert "no training report" not in text


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its two head lines."""
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]


def test_tables_list_every_variant(variants_dir: Path) -> None:
    text = (variants_dir / "SUMMARY.md").read_text(encoding="utf-8")
    manifest = open_package(variants_dir).manifest
    modes = [(row[0], row[1]) for row in rows_of(text, "Parity with PyTorch")]
    names = [variant.name for variant in manifest.variants]
    assert list(dict.fromkeys(name for name, _ in modes)) == names
    assert len(modes) == 6 * 2 + 3, "the single graph takes one text per call"
    listed = [(row[0], row[1]) for row in rows_of(text, "Parts")]
    assert listed == [(name, component.name) for name in names for component in manifest.in_variant(name)]


def test_refused_parts_match_manifest(variants_dir: Path) -> None:
    text = (variants_dir / "SUMMARY.md").read_text(encoding="utf-8")
    manifest = open_package(variants_dir).manifest
    rows = rows_of(text, "Quantized parts")
    assert [row[0] for row in rows] == ["separate-int8", "fused-int8", "separate-int4", "fused-int4"]
    for variant, texts, quantized, _, _, _, kept in rows:
        files = {c.name: c.files[variant].file for c in manifest.in_variant(variant)}
        exact = [part for part, file in files.items() if file == f"graphs/{part}.onnx"]
        assert re.findall(r"(\w+) \((?:loses more than|its outputs are)", kept) == exact
        assert quantized.startswith(f"{len(files) - len(exact)} of {len(files)}: ")
        assert texts.endswith(", not labeled") and int(texts.split(",")[0]) == len(SENTENCES)
    assert any(row[-1] != "none" for row in rows), "the tiny model's int4 layers change too many labels"


def test_fp32_has_no_quantization_table(package_dir: Path) -> None:
    assert "## Quantized parts" not in (package_dir / "SUMMARY.md").read_text(encoding="utf-8")


def test_printed_refusals(package_dir: Path) -> None:
    opened = open_package(package_dir)
    policy = opened.manifest.golden.policy
    report = verify(Sessions(opened, opened.manifest.variant()), read_golden(opened), policy, oracle="PyTorch")

    def agreement(labels: float, exit_layers: float, loss: float) -> Agreement:
        estimate = LossEstimate(mean=loss, lower=loss - 0.01, upper=loss + 0.01)
        return Agreement(loss=estimate, labels=labels, exit_layers=exit_layers, scheme="static")

    poor, fair = agreement(0.9, 0.8, 0.05), agreement(0.994, 0.99, 0.012)
    quantization = QuantizationReport(
        precision="int8",
        texts=512,
        labeled=True,
        schemes={"layer_02": "static"},
        alone={"layer_01": poor, "layer_02": fair, "layer_03": fair},
        refused={"layer_01": ALONE, "layer_03": TOGETHER},
        together=agreement(0.985, 0.9651, 0.004),
    )
    lines = export_lines((report,), {"separate-int8": quantization})
    assert lines[0].startswith("parity   separate-fp32: worst part ")
    assert lines[0].endswith(" from PyTorch, 100.00% of the golden labels equal")
    assert lines[1:] == [
        "int8     separate-int8: 1 of 3 parts quantized (1 static); on 512 texts 0.40% (-0.60% to 1.40%) accuracy "
        "lost, 98.50% of the labels and 96.51% of the exits as in fp32",
        "         layer_01 stays fp32: loses more than 0.25% accuracy alone: 5.00% (4.00% to 6.00%)",
        "         layer_03 stays fp32: all together lose more than 0.50% accuracy, this one the most: 1.20% (0.20% to "
        "2.20%)",
    ]


def test_printed_gate_cost() -> None:
    (line,) = export_lines((), {}, 0.043, 384)
    assert (
        line.startswith("gates    skip 4.3% of the layers") and "about 6% of a layer" in line and "--no-gates" in line
    )
    assert export_lines((), {}, 0.043, 768) == export_lines((), {}, 0.3) == export_lines((), {}, None) == []
