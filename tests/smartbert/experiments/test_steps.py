"""steps.py: every stage is timed against plain fine-tuning on the same batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from smartbert.data import TaskData
from smartbert.experiments.steps import measure_steps
from tests.smartbert.conftest import TINY_SETTINGS


def test_all_stages_are_timed_in_one_run(encoder_dir: Path, task_data: TaskData) -> None:
    report = measure_steps(str(encoder_dir), task_data, replace(TINY_SETTINGS, precision="bf16"), steps=4)
    costs = {cost.name: cost for cost in report.costs}
    assert list(costs) == ["plain", "stage 1, plain", "stage 1, soft", "stage 1, hard", "stage 2"]
    assert (costs["plain"].ratio, costs["plain"].low, costs["plain"].high) == (1.0, 1.0, 1.0)
    for cost in costs.values():
        assert cost.median_s > 0.0 and cost.low <= cost.ratio <= cost.high
    # Stage 1 runs the plain step's layers, gates and heads besides.
    assert costs["stage 1, soft"].ratio > 1.0
    assert "4 steps of 4 texts" in report.conditions and "bf16" in report.conditions


def test_the_conditions_name_the_length_with_padding(encoder_dir: Path, task_data: TaskData) -> None:
    report = measure_steps(str(encoder_dir), task_data, replace(TINY_SETTINGS, batch_size=1, precision="auto"), steps=4)
    words = report.conditions.split()
    assert 3.0 <= float(words[words.index("tokens") - 1]) <= 24.0
    assert "fp32" in report.conditions
