"""train.py interrupted and resumed: the same weights as unbroken, and every refusal comes before the training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from smartbert.data.splits import TaskData
from smartbert.training.settings import TrainingSettings
from smartbert.training.train import train
from smartbert_runtime.errors import ConfigError, InputError
from tests.smartbert.conftest import TINY_SETTINGS, TrainedRun, differing_weights, epochs


def _stop_at(start: str) -> Callable[[str], None]:
    """A log that stops the run, as Ctrl-C would, at the first line beginning with `start`."""

    def log(line: str) -> None:
        if line.startswith(start):
            raise KeyboardInterrupt

    return log


def _interrupt(encoder: Path, data: TaskData, output: Path, settings: TrainingSettings, line: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(str(encoder), data, output, settings, log=_stop_at(line))
    assert not output.exists()
    assert output.with_name(f"{output.name}.partial").is_dir()


def _tree(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))


def test_same_seed_gives_same_weights(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(12345)  # what happened before must not matter
    again = train(str(encoder_dir), task_data, tmp_path / "deep" / "ckpt", TINY_SETTINGS)
    assert capfd.readouterr().out == ""  # stdout is the command's
    assert differing_weights(trained.output, tmp_path / "deep" / "ckpt") == []
    # All but the logs' timings.
    assert replace(again, stage1_log=(), stage2_log=()) == replace(trained.report, stage1_log=(), stage2_log=())


def test_another_seed_gives_other_weights(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    _interrupt(encoder_dir, task_data, tmp_path / "ckpt", replace(TINY_SETTINGS, seed=8), "stage 1: epoch 2")
    trained.interrupt_at("stage 1: epoch 2", tmp_path / "trained")
    epoch = f"stage1/checkpoint-{-(-len(task_data.train) // TINY_SETTINGS.batch_size)}"
    folders = [tmp_path / f"{name}.partial" / epoch for name in ("ckpt", "trained")]
    assert "model.exits.3.classify.weight" in differing_weights(*folders)


def test_interrupted_in_stage_1(trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    # Stopped at the end of epoch 2, before it is saved.
    _interrupt(encoder_dir, task_data, tmp_path / "ckpt", TINY_SETTINGS, "stage 1: epoch 2")
    # The other tests take the working folder from `trained`: what it was there is what an interrupt leaves.
    trained.interrupt_at("stage 1: epoch 2", tmp_path / "copied" / "ckpt")
    assert _tree(tmp_path / "ckpt.partial") == _tree(tmp_path / "copied" / "ckpt.partial")
    shutil.rmtree(tmp_path / "copied")

    log: list[str] = []
    report = train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS, resume=True, log=log.append)
    assert epochs(log) == ["stage 1: epoch 2", "stage 2: epoch 1"]
    assert differing_weights(trained.output, tmp_path / "ckpt") == []
    assert report.dev == trained.report.dev
    assert [entry["epoch"] for entry in report.stage1_log] == [1.0, 2.0]
    assert [file.name for file in tmp_path.iterdir()] == ["ckpt"]  # ckpt.partial is gone


def test_interrupted_in_first_epoch(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    trained.interrupt_at("stage 1: epoch 1", tmp_path / "ckpt")
    log: list[str] = []
    train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS, resume=True, log=log.append)
    assert epochs(log) == ["stage 1: epoch 1", "stage 1: epoch 2", "stage 2: epoch 1"]
    assert differing_weights(trained.output, tmp_path / "ckpt") == []


def test_interrupted_in_stage_2(trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    # Stage 2 begins anew: its contrast heads must start as they would have. Stage 1 is not trained again, although an
    # earlier epoch than its last was its best.
    first, second = trained.report.stage1_log
    assert first["eval_choice"] >= second["eval_choice"]
    trained.interrupt_at("stage 2: epoch 1", tmp_path / "ckpt")
    log: list[str] = []
    train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS, resume=True, log=log.append)
    assert epochs(log) == ["stage 2: epoch 1"]
    assert differing_weights(trained.output, tmp_path / "ckpt") == []


def test_interrupted_after_stage_2(trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    trained.interrupt_at("exit threshold", tmp_path / "ckpt")
    log: list[str] = []
    report = train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS, resume=True, log=log.append)
    assert epochs(log) == []
    assert differing_weights(trained.output, tmp_path / "ckpt") == []
    assert report.dev == trained.report.dev


def test_only_overwrite_discards_interrupted_run(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    trained.interrupt_at("exit threshold", tmp_path / "ckpt")
    with pytest.raises(InputError, match="holds an interrupted run") as caught:
        train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS)
    assert "--resume" in caught.value.hint and "--overwrite" in caught.value.hint
    log: list[str] = []
    train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS, overwrite=True, log=log.append)
    assert len(epochs(log)) == 3
    assert differing_weights(trained.output, tmp_path / "ckpt") == []


def test_encoder_is_recognized_by_content(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    output = tmp_path / "ckpt"
    trained.interrupt_at("stage 2: epoch 1", output)
    moved = Path(shutil.copytree(encoder_dir, tmp_path / encoder_dir.name))
    weights = load_file(moved / "model.safetensors")
    first = min(weights)
    save_file({**weights, first: weights[first] + 1.0}, moved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="begun with another model"):
        train(str(moved), task_data, output, TINY_SETTINGS, resume=True)
    shutil.copy(encoder_dir / "model.safetensors", moved)
    train(str(moved), task_data, output, TINY_SETTINGS, resume=True)
    assert differing_weights(trained.output, output) == []


def test_existing_output_is_refused(encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    output = tmp_path / "ckpt"
    output.mkdir()
    (output / "mine.txt").write_text("kept", encoding="utf-8")
    log: list[str] = []
    with pytest.raises(InputError, match="ckpt exists already"):
        train(str(encoder_dir), task_data, output, TINY_SETTINGS, log=log.append)
    assert log == []
    assert [file.name for file in tmp_path.iterdir()] == ["ckpt"]
    assert (output / "mine.txt").read_text(encoding="utf-8") == "kept"


def test_unwritable_output_is_refused(encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="file"):
        train(str(encoder_dir), task_data, tmp_path / "file" / "ckpt", TINY_SETTINGS)


def test_nothing_to_resume_is_refused(encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing to resume in .*ckpt\.partial") as caught:
        train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS, resume=True)
    assert "without --resume" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_another_run_is_not_resumed(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    trained.interrupt_at("stage 1: epoch 1", tmp_path / "ckpt")
    other = Path(shutil.copytree(encoder_dir, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.3}), encoding="utf-8")
    before = _tree(tmp_path)
    # As with another --max-train-samples: epoch 1 would have seen some texts and epoch 2 others.
    fewer = replace(task_data, train=task_data.train.pick(range(20)))
    attempts = (
        (str(encoder_dir), task_data, replace(TINY_SETTINGS, stage2_learning_rate=0.5)),
        (str(encoder_dir), replace(task_data, labels=("calm", "noisy")), TINY_SETTINGS),
        (str(encoder_dir), fewer, TINY_SETTINGS),
        (str(other), task_data, TINY_SETTINGS),
    )
    for model, data, settings in attempts:
        with pytest.raises(InputError, match="begun with another model, other texts, other settings"):
            train(model, data, tmp_path / "ckpt", settings, resume=True)
    assert _tree(tmp_path) == before


def test_foreign_working_folder_is_kept(encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    (tmp_path / "ckpt.partial").mkdir()
    (tmp_path / "ckpt.partial" / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(InputError, match=r"ckpt\.partial is in the way"):
        train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS)
    assert (tmp_path / "ckpt.partial" / "mine.txt").read_text(encoding="utf-8") == "kept"


def test_refused_encoder_leaves_nothing(task_data: TaskData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        train(str(tmp_path / "nowhere"), task_data, tmp_path / "ckpt", TINY_SETTINGS)
    assert list(tmp_path.iterdir()) == []
