"""progress.py: what a stage logs and when, and the bar on a terminal."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from smartbert.training import progress
from smartbert.training.progress import Progress

CONTROL = TrainerControl()
METRICS = {
    "eval_accuracy": 0.87654,
    "eval_layers_run": 2.5,
    "eval_skip_rate_02": 0.4,
    "eval_skip_rate_01": 0.1,
    "eval_exit_accuracy_01": 0.5,
    "eval_exit_accuracy_02": 0.876,
    "eval_loss": 0.3,
}


@pytest.fixture
def arguments(tmp_path: Path) -> TrainingArguments:
    """The Trainer hands them to every callback."""
    return TrainingArguments(output_dir=str(tmp_path), report_to=[])


def _state(step: int, *, loss: float | None = None) -> TrainerState:
    history = [] if loss is None else [{"loss": 9.0, "step": 1}, {"loss": loss, "step": 2}, {"eval_accuracy": 0.5}]
    return TrainerState(global_step=step, max_steps=40, epoch=2.0, log_history=history, is_world_process_zero=True)


def test_evaluation_is_one_line(arguments: TrainingArguments) -> None:
    lines: list[str] = []
    Progress("stage 1", lines.append, bar=False).on_evaluate(arguments, _state(20), CONTROL, metrics=METRICS)
    assert lines == [
        "stage 1: epoch 2  validation accuracy 0.8765  layers run 2.50  skip rate [0.10 0.40]  "
        "exit accuracy [0.50 0.88]"
    ]


def test_layer_order_beyond_ten(arguments: TrainingArguments) -> None:
    lines: list[str] = []
    skips = {f"eval_skip_rate_{layer:02d}": layer / 100 for layer in (12, 2, 10, 1)}
    metrics = {"eval_accuracy": 0.5, "eval_layers_run": 1.0, **skips}
    Progress("stage 1", lines.append, bar=False).on_evaluate(arguments, _state(20), CONTROL, metrics=metrics)
    assert "skip rate [0.01 0.02 0.10 0.12]" in lines[0]


def test_quick_steps_are_not_logged(arguments: TrainingArguments) -> None:
    lines: list[str] = []
    shown = Progress("stage 1", lines.append, bar=False)
    shown.on_train_begin(arguments, _state(0), CONTROL)
    for step in (1, 2, 3):
        shown.on_step_end(arguments, _state(step), CONTROL)
    assert lines == []


def test_step_after_the_pause(arguments: TrainingArguments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    lines: list[str] = []
    shown = Progress("stage 2", lines.append, bar=False)
    shown.on_train_begin(arguments, _state(0), CONTROL)
    shown.on_step_end(arguments, _state(1), CONTROL)
    shown.on_step_end(arguments, _state(3, loss=0.25), CONTROL)
    assert [line.split("  about ")[0] for line in lines] == [
        "stage 2: step 1/40",
        "stage 2: step 3/40  loss 0.2500",  # the last loss, not the first
    ]


def test_pace_of_a_resumed_run(arguments: TrainingArguments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    lines: list[str] = []
    shown = Progress("stage 1", lines.append, bar=False)
    shown.on_train_begin(arguments, _state(30), CONTROL)
    shown._began -= 100.0  # as if 100 seconds had passed: 5 steps at 20 s, 5 more to go
    shown.on_step_end(arguments, _state(35), CONTROL)
    assert lines == ["stage 1: step 35/40  about 100 s left"]


def test_other_processes_log_nothing(arguments: TrainingArguments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    lines: list[str] = []
    shown = Progress("stage 1", lines.append, bar=False)
    second = _state(5)
    second.is_world_process_zero = False
    shown.on_train_begin(arguments, second, CONTROL)
    shown.on_step_end(arguments, second, CONTROL)
    shown.on_evaluate(arguments, second, CONTROL, metrics=METRICS)
    assert lines == []


def test_bar_replaces_step_lines(
    arguments: TrainingArguments, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    lines: list[str] = []
    shown = Progress("stage 1", lines.append, bar=True)
    shown.on_train_begin(arguments, _state(10), CONTROL)
    shown.on_step_end(arguments, _state(40), CONTROL)
    shown.on_train_end(arguments, _state(40), CONTROL)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "stage 1" in captured.err and "10/40" in captured.err and "40/40" in captured.err
    assert lines == []
