"""saving.py: only a marked epoch counts, the best and the last stay, and the best is found wherever the folder is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState, TrainingArguments

from smartbert.data.task_data import TaskData
from smartbert.training.saved_epochs import MARKER, MarkAndRotate, last_complete, remove_incomplete
from smartbert.training.train import train
from tests.smartbert.conftest import TINY_SETTINGS, TrainedRun


def _epoch(folder: Path, step: int, *, whole: bool) -> Path:
    epoch = folder / f"checkpoint-{step}"
    epoch.mkdir(parents=True)
    (epoch / "model.safetensors").write_bytes(b"weights")
    if whole:
        (epoch / MARKER).touch()
    return epoch


def _save(folder: Path, step: int, *, best: int | None) -> None:
    """What the Trainer does at an epoch's end: write a folder, then tell the callbacks."""
    _epoch(folder, step, whole=False)
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True)
    state = TrainerState(global_step=step, best_global_step=best)
    MarkAndRotate().on_save(arguments, state, TrainerControl())


def _names(folder: Path) -> set[str]:
    return {epoch.name for epoch in folder.iterdir()}


def test_no_epoch_is_complete_in_a_folder_that_is_not_there(tmp_path: Path) -> None:
    assert last_complete(tmp_path / "stage1") is None
    remove_incomplete(tmp_path / "stage1")
    assert list(tmp_path.iterdir()) == []


def test_the_last_complete_epoch_is_the_one_of_the_highest_step(tmp_path: Path) -> None:
    # By number: as words, checkpoint-90 comes after checkpoint-100.
    for step in (100, 9, 90):
        _epoch(tmp_path, step, whole=True)
    assert last_complete(tmp_path) == tmp_path / "checkpoint-100"


def test_an_epoch_without_its_marker_does_not_count_and_is_removed(tmp_path: Path) -> None:
    whole, half = _epoch(tmp_path, 9, whole=True), _epoch(tmp_path, 18, whole=False)
    assert last_complete(tmp_path) == whole
    remove_incomplete(tmp_path)
    assert whole.is_dir() and (whole / "model.safetensors").is_file()
    assert not half.exists()


def test_a_saved_epoch_is_marked(tmp_path: Path) -> None:
    _save(tmp_path, 9, best=9)
    assert last_complete(tmp_path) == tmp_path / "checkpoint-9"


def test_the_best_and_the_last_epoch_are_kept_and_the_others_removed(tmp_path: Path) -> None:
    _save(tmp_path, 9, best=9)
    _save(tmp_path, 18, best=9)
    assert _names(tmp_path) == {"checkpoint-9", "checkpoint-18"}
    _save(tmp_path, 27, best=9)
    assert _names(tmp_path) == {"checkpoint-9", "checkpoint-27"}
    _save(tmp_path, 36, best=36)
    assert _names(tmp_path) == {"checkpoint-36"}


def test_the_trainer_keeps_the_best_and_the_last_epoch_of_a_real_run(
    encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    # As every epoch of stage 1 is equally good here, its first one stays the best.
    stage1 = tmp_path / "ckpt.partial" / "stage1"
    _interrupt(encoder_dir, task_data, tmp_path / "ckpt", "stage 2: epoch 1")
    steps = -(-len(task_data.train) // TINY_SETTINGS.batch_size)
    assert _names(stage1) == {f"checkpoint-{steps}", f"checkpoint-{2 * steps}"}
    assert all((epoch / MARKER).is_file() for epoch in stage1.iterdir())


def test_an_interrupted_run_that_was_moved_still_ends_with_its_best_epoch(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    # The Trainer notes the best epoch by its path; not finding it there, it went on with the last one's weights.
    _interrupt(encoder_dir, task_data, tmp_path / "ckpt", "stage 2: epoch 1")
    (tmp_path / "ckpt.partial").rename(tmp_path / "moved.partial")
    train(str(encoder_dir), task_data, tmp_path / "moved", TINY_SETTINGS, resume=True)
    weights, unbroken = (load_file(folder / "model.safetensors") for folder in (tmp_path / "moved", trained.output))
    assert [name for name in unbroken if not torch.equal(weights[name], unbroken[name])] == []


def _interrupt(encoder: Path, data: TaskData, output: Path, line: str) -> None:
    def say(said: str) -> None:
        if said.startswith(line):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(str(encoder), data, output, TINY_SETTINGS, say=say)
