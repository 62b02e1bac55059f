"""A loss that is not a number: the run stops with a named error, and the epochs saved before it are kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from smartbert.cli.train import main
from smartbert.data.splits import TaskData
from smartbert.training.objectives import Objective
from smartbert.training.saved_epochs import MARKER
from smartbert.training.settings import TrainingSettings
from smartbert.training.train import train
from smartbert_runtime.errors import TrainingError
from tests.helpers import assert_named_error, run_main
from tests.smartbert.conftest import TINY_SETTINGS, epochs
from tests.smartbert.training.command import arguments

# So large that the first steps overflow float32.
HUGE_RATE = 1e30


@contextmanager
def _no_gradient_at(step: int) -> Iterator[None]:
    """In the training step of this number, counted from 1, one gradient is NaN; the step's loss is still a number."""
    steps: list[int] = []

    def poison(module: nn.Module, inputs: Any) -> None:
        if isinstance(module, Objective) and module.training:
            steps.append(1)
            if len(steps) == step:
                weight = next(weight for weight in module.parameters() if weight.requires_grad)
                weight.register_hook(_not_a_number)

    hook = register_module_forward_pre_hook(poison)
    try:
        yield
    finally:
        hook.remove()


def _not_a_number(gradient: Tensor) -> Tensor:
    return gradient * float("nan")


def _assert_saved(stage: Path, *steps: int) -> None:
    """The stage's folder holds these epochs, whole, and only numbers as weights."""
    assert {epoch.name for epoch in stage.glob("*")} == {f"checkpoint-{step}" for step in steps}
    for epoch in stage.glob("*"):
        assert (epoch / MARKER).is_file()
        weights = load_file(epoch / "model.safetensors")
        assert [name for name, weight in weights.items() if not torch.isfinite(weight).all()] == []


def _steps(data: TaskData, settings: TrainingSettings = TINY_SETTINGS) -> int:
    """Steps of an epoch."""
    return -(-len(data.train) // settings.batch_size)


def test_command_names_step_and_kept_epoch(
    encoder_dir: Path,
    task_data: TaskData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps = _steps(task_data)
    options = arguments(encoder_dir, tmp_path, replace(TINY_SETTINGS, stage2_learning_rate=HUGE_RATE))
    run = run_main(main, *options, monkeypatch=monkeypatch, capsys=capsys)
    kept = tmp_path / "ckpt.partial" / "stage1" / f"checkpoint-{2 * steps}"
    assert_named_error(run, "error: the loss of step 2 is nan", f"the last good epoch is kept in {kept}")
    assert "hint: begin anew with --overwrite and a lower --stage2-learning-rate\n" in run.err
    assert not (tmp_path / "ckpt").exists()
    _assert_saved(tmp_path / "ckpt.partial" / "stage1", steps, 2 * steps)
    _assert_saved(tmp_path / "ckpt.partial" / "stage2")

    # And following the hint helps.
    options = arguments(encoder_dir, tmp_path, TINY_SETTINGS)
    run = run_main(main, *options, "--overwrite", monkeypatch=monkeypatch, capsys=capsys)
    assert run.code == 0, run.err


def test_overflow_before_first_epoch(encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    settings = replace(TINY_SETTINGS, learning_rate=HUGE_RATE, head_learning_rate=HUGE_RATE)
    with pytest.raises(TrainingError, match="the loss of step 2 is nan; no epoch was saved yet") as caught:
        train(str(encoder_dir), task_data, tmp_path / "ckpt", settings)
    assert caught.value.hint == "begin anew with --overwrite and a lower --learning-rate or --head-learning-rate"
    _assert_saved(tmp_path / "ckpt.partial" / "stage1")


def test_first_epoch_is_kept(encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    steps = _steps(task_data)
    kept = tmp_path / "ckpt.partial" / "stage1" / f"checkpoint-{steps}"
    with _no_gradient_at(steps + 2), pytest.raises(TrainingError) as caught:
        train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS)
    assert str(caught.value) == f"the loss of step {steps + 3} is nan; the last good epoch is kept in {kept}"
    assert not (tmp_path / "ckpt").exists()
    _assert_saved(kept.parent, steps)


@pytest.mark.parametrize("epoch", [1, 2])
def test_broken_epoch_is_not_saved(encoder_dir: Path, task_data: TaskData, tmp_path: Path, epoch: int) -> None:
    # All losses of this epoch were numbers; after the stage's last step there is none that could show it.
    steps = _steps(task_data)
    with _no_gradient_at(epoch * steps), pytest.raises(TrainingError) as caught:
        train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS)
    assert str(caught.value).startswith(f"after step {epoch * steps} some weights are not numbers; ")
    _assert_saved(tmp_path / "ckpt.partial" / "stage1", *([steps] if epoch == 2 else []))


def test_resume_after_passing_fault(encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    with _no_gradient_at(_steps(task_data) + 2), pytest.raises(TrainingError):
        train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS)
    log: list[str] = []
    train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS, resume=True, log=log.append)
    assert epochs(log) == ["stage 1: epoch 2", "stage 2: epoch 1"]
    assert (tmp_path / "ckpt" / "model.safetensors").is_file()
