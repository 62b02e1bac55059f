"""saved_epochs.py: only a marked epoch counts, the best and the last stay, and a moved folder keeps its best."""

from __future__ import annotations

import json
from pathlib import Path

from transformers import TrainerControl, TrainerState, TrainingArguments

from smartbert.data.splits import TaskData
from smartbert.training.saved_epochs import MARKER, MarkAndRotate, last_complete, remove_incomplete
from smartbert.training.train import train
from tests.smartbert.conftest import TINY_SETTINGS, TrainedRun, differing_weights


def _epoch(folder: Path, step: int, *, whole: bool) -> Path:
    epoch = folder / f"checkpoint-{step}"
    epoch.mkdir(parents=True)
    (epoch / "model.safetensors").write_bytes(b"weights")
    if whole:
        (epoch / MARKER).touch()
    return epoch


def _save(folder: Path, step: int, *, best: int | None) -> None:
    """What the Trainer does at an epoch's end: write a folder, then run the callbacks."""
    _epoch(folder, step, whole=False)
    arguments = TrainingArguments(output_dir=str(folder), use_cpu=True)
    state = TrainerState(global_step=step, best_global_step=best)
    MarkAndRotate().on_save(arguments, state, TrainerControl())


def _names(folder: Path) -> set[str]:
    return {epoch.name for epoch in folder.iterdir()}


def test_missing_folder_has_no_epoch(tmp_path: Path) -> None:
    assert last_complete(tmp_path / "stage1") is None
    remove_incomplete(tmp_path / "stage1")
    assert list(tmp_path.iterdir()) == []


def test_last_complete_by_step_number(tmp_path: Path) -> None:
    # By number: as words, checkpoint-90 comes after checkpoint-100.
    for step in (100, 9, 90):
        _epoch(tmp_path, step, whole=True)
    assert last_complete(tmp_path) == tmp_path / "checkpoint-100"


def test_unmarked_epoch_is_removed(tmp_path: Path) -> None:
    whole, half = _epoch(tmp_path, 9, whole=True), _epoch(tmp_path, 18, whole=False)
    assert last_complete(tmp_path) == whole
    remove_incomplete(tmp_path)
    assert whole.is_dir() and (whole / "model.safetensors").is_file()
    assert not half.exists()


def test_saved_epoch_is_marked(tmp_path: Path) -> None:
    _save(tmp_path, 9, best=9)
    assert last_complete(tmp_path) == tmp_path / "checkpoint-9"


def test_best_and_last_epoch_are_kept(tmp_path: Path) -> None:
    _save(tmp_path, 9, best=9)
    _save(tmp_path, 18, best=9)
    assert _names(tmp_path) == {"checkpoint-9", "checkpoint-18"}
    _save(tmp_path, 27, best=9)
    assert _names(tmp_path) == {"checkpoint-9", "checkpoint-27"}
    _save(tmp_path, 36, best=36)
    assert _names(tmp_path) == {"checkpoint-36"}


def test_epochs_kept_of_a_real_run(trained: TrainedRun, task_data: TaskData, tmp_path: Path) -> None:
    # The first epoch of stage 1 stays the best, because the second one is not better.
    trained.interrupt_at("stage 2: epoch 1", tmp_path / "ckpt")
    stage1 = tmp_path / "ckpt.partial" / "stage1"
    steps = -(-len(task_data.train) // TINY_SETTINGS.batch_size)
    assert _names(stage1) == {f"checkpoint-{steps}", f"checkpoint-{2 * steps}"}
    assert all((epoch / MARKER).is_file() for epoch in stage1.iterdir())


def test_moved_run_ends_with_its_best_epoch(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    # The Trainer notes the best epoch by its path; not finding it there, it went on with the last one's weights.
    steps = -(-len(task_data.train) // TINY_SETTINGS.batch_size)
    trained.interrupt_at("stage 2: epoch 1", tmp_path / "moved")
    last = tmp_path / "moved.partial" / "stage1" / f"checkpoint-{2 * steps}"
    state = json.loads((last / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["best_global_step"] == steps
    assert not state["best_model_checkpoint"].startswith(str(tmp_path))
    train(str(encoder_dir), task_data, tmp_path / "moved", TINY_SETTINGS, resume=True)
    assert differing_weights(tmp_path / "moved", trained.output) == []
