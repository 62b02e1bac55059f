"""SUMMARY.md: what a person finds in it, with and without a training report."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from smartbert.evaluation.curves import Summary
from smartbert.evaluation.evaluate import Evaluation
from smartbert.evaluation.thresholds import ThresholdChoice
from smartbert.training.settings import TrainingSettings
from smartbert.training.train import TrainingReport
from smartbert_export.summary import summary_text
from smartbert_runtime.golden import read_golden
from smartbert_runtime.manifest import open_package
from smartbert_runtime.policy import Policy
from smartbert_runtime.sessions import Sessions
from smartbert_runtime.verify import verify


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


def test_the_summary_names_labels_sizes_thresholds_and_origin(package_dir: Path) -> None:
    text = (package_dir / "SUMMARY.md").read_text(encoding="utf-8")
    manifest = open_package(package_dir).manifest
    assert "- labels: calm, loud, odd\n" in text
    assert "A text classifier of 4 layers (hidden size 32)" in text
    assert "longest input: 24 tokens" in text
    assert "skip probability 0.5 and above, answer at normalised entropy below 0.5" in text
    assert f"- checkpoint sha256: {manifest.provenance.checkpoint_sha256}\n" in text
    assert f"torch {manifest.provenance.packages['torch']}" in text
    assert "The checkpoint carries no training report." in text


def test_every_part_stands_in_the_table_with_its_size(package_dir: Path) -> None:
    text = (package_dir / "SUMMARY.md").read_text(encoding="utf-8")
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| ") and ".onnx" not in line]
    sizes = {row[1].strip(): row[4].strip() for row in rows if len(row) == 7 and row[4].strip().isdigit()}
    graphs = {file.stem: f"{file.stat().st_size / 1000:.0f}" for file in (package_dir / "graphs").iterdir()}
    assert sizes == graphs and len(sizes) == 13
    gate = next(row for row in rows if row[1].strip() == "gate_02")
    assert gate[2].strip() == "hidden (batch,sequence,32), mask (batch,1,1,sequence)"
    assert gate[3].strip() == "skip_logit (batch)"
    assert gate[5].strip().startswith("under ")


def test_parity_stands_there_for_both_ways_of_running_texts(package_dir: Path) -> None:
    text = (package_dir / "SUMMARY.md").read_text(encoding="utf-8")
    ways = re.findall(r"^\| (texts .*) \| 24 \| 0 \| 100.00% \| within 1e-04 \|$", text, flags=re.MULTILINE)
    assert len(ways) == 2 and ways[0] == "texts one by one" and "batch" in ways[1]


def test_a_training_report_becomes_the_model_card(package_dir: Path) -> None:
    opened = open_package(package_dir)
    policy = Policy(skip_threshold=0.5, exit_threshold=0.3)
    report = verify(Sessions(opened, opened.manifest.variant()), read_golden(opened), policy, oracle="the recording")
    dev, full_depth = dev_summary(0.92, 2.25), dev_summary(0.94, 3.5)
    training = TrainingReport(
        run="digest",
        base_model="tiny-encoder",
        settings=TrainingSettings(
            stage1_epochs=4, plain_epochs=0, soft_epochs=1, stage2_epochs=3, seed=11, max_length=24
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
    text = summary_text(opened.manifest, policy, report, asdict(training))
    assert "Fine-tuned from `tiny-encoder` on 180 texts; thresholds chosen on 20 others" in text
    assert "measured in PyTorch on 50 dev texts" in text
    assert "accuracy 0.9200 with 2.25 layers run on average (0.9400 with 3.50 layers when no exit is taken)" in text
    assert "- recall: calm 0.7500, loud 1.0000" in text
    assert "- seed 11, 4 + 3 epochs, texts cut to 24 tokens" in text
    assert "answer at normalised entropy below 0.3" in text
    assert "no training report" not in text
