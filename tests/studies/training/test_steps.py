"""Steps: every stage is timed against plain fine-tuning on the same batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from smartbert.data.splits import TaskData
from studies.training.steps import make_objectives, time_steps
from tests.conftest import LABELS
from tests.smartbert.conftest import TINY_SETTINGS, Batch


def test_all_stages_are_timed(encoder_dir: Path, task_data: TaskData) -> None:
    report = time_steps(str(encoder_dir), task_data, replace(TINY_SETTINGS, mixed_precision="bf16"), steps=4)
    costs = {cost.name: cost for cost in report.costs}
    assert list(costs) == ["plain", "stage 1, ungated", "stage 1, soft", "stage 1, hard", "stage 2"]
    assert (costs["plain"].ratio, costs["plain"].low, costs["plain"].high) == (1.0, 1.0, 1.0)
    for cost in costs.values():
        assert cost.median_s > 0.0 and cost.low <= cost.ratio <= cost.high
    assert "4 steps of 4 texts" in report.conditions and "bf16" in report.conditions


def test_each_stage_trains_its_own_parts(encoder_dir: Path, batch: Batch) -> None:
    # What is timed is the stage's own work: which parts a step's gradient reaches, independent of any clock.
    settings = replace(TINY_SETTINGS, joint_exits=1.0)
    trained = {}
    for name, objective in make_objectives(str(encoder_dir), LABELS, settings).items():
        objective.train()
        objective(**batch)["loss"].backward()
        reached = {key for key, value in objective.model.named_parameters() if value.grad is not None}
        parts = {"backbone": "backbone.", "gates": "gates.", "early exits": "exits.0.", "classifier": "classify."}
        bare = {key.removeprefix("classifier.") for key in reached}  # PlainClassifier wraps transformers' own model
        trained[name] = {part for part, prefix in parts.items() if any(key.startswith(prefix) for key in bare)}
    assert trained == {
        "plain": {"backbone", "classifier"},
        "stage 1, ungated": {"backbone", "early exits"},
        "stage 1, soft": {"backbone", "gates", "early exits"},
        "stage 1, hard": {"backbone", "gates", "early exits"},
        "stage 2": {"early exits"},
    }


def test_conditions_name_padded_length(encoder_dir: Path, task_data: TaskData) -> None:
    report = time_steps(
        str(encoder_dir), task_data, replace(TINY_SETTINGS, batch_size=1, mixed_precision="auto"), steps=4
    )
    words = report.conditions.split()
    assert 3.0 <= float(words[words.index("tokens") - 1]) <= 24.0
    assert "fp32" in report.conditions
