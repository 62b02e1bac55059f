"""train.py interrupted and resumed: the same weights as unbroken, and every refusal comes before the training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from smartbert.data.task_data import TaskData
from smartbert.training.settings import TrainingSettings
from smartbert.training.train import train
from smartbert_runtime.errors import ConfigError, InputError
from tests.smartbert.conftest import TINY_SETTINGS, TrainedRun

# Nothing moves in stage 1, so its two epochs are equally good and the first one is its best.
FIRST_EPOCH_BEST = replace(TINY_SETTINGS, learning_rate=0.0, head_learning_rate=0.0)


def _stop_at(start: str) -> Callable[[str], None]:
    """A `say` that stops the run, as Ctrl-C would, at the first line beginning with `start`."""

    def say(line: str) -> None:
        if line.startswith(start):
            raise KeyboardInterrupt

    return say


def _interrupt(encoder: Path, data: TaskData, output: Path, settings: TrainingSettings, line: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(str(encoder), data, output, settings, say=_stop_at(line))
    assert not output.exists()
    assert output.with_name(f"{output.name}.partial").is_dir()


def _differing(one: Path, other: Path) -> list[str]:
    """Names of the weights that are not bit-equal."""
    first, second = (load_file(checkpoint / "model.safetensors") for checkpoint in (one, other))
    assert list(first) == list(second)
    return [name for name in first if not torch.equal(first[name], second[name])]


def _epochs(said: list[str]) -> list[str]:
    return [line.split("  ")[0] for line in said if "epoch" in line]


def test_the_same_seed_gives_the_same_weights_and_prints_nothing_on_stdout(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(12345)  # what happened before must not matter
    again = train(str(encoder_dir), task_data, tmp_path / "deep" / "ckpt", TINY_SETTINGS)
    assert capfd.readouterr().out == ""
    assert _differing(trained.output, tmp_path / "deep" / "ckpt") == []
    # All but the logs' timings.
    assert replace(again, stage1_log=(), stage2_log=()) == replace(trained.report, stage1_log=(), stage2_log=())


def test_another_seed_gives_other_weights(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    train(str(encoder_dir), task_data, tmp_path / "ckpt", replace(TINY_SETTINGS, seed=8))
    assert "exits.3.classify.weight" in _differing(trained.output, tmp_path / "ckpt")


def test_a_run_interrupted_in_stage_1_goes_on_after_its_last_saved_epoch(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    # Stopped at the end of epoch 2, before it is saved.
    _interrupt(encoder_dir, task_data, tmp_path / "ckpt", TINY_SETTINGS, "stage 1: epoch 2")
    said: list[str] = []
    report = train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS, resume=True, say=said.append)
    assert _epochs(said) == ["stage 1: epoch 2", "stage 2: epoch 1"]
    assert _differing(trained.output, tmp_path / "ckpt") == []
    assert report.dev == trained.report.dev
    assert [entry["epoch"] for entry in report.stage1_log] == [1.0, 2.0]
    assert [file.name for file in tmp_path.iterdir()] == ["ckpt"]  # ckpt.partial is gone


def test_a_run_interrupted_in_the_first_epoch_starts_again_with_resume(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    _interrupt(encoder_dir, task_data, tmp_path / "ckpt", TINY_SETTINGS, "stage 1: epoch 1")
    train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS, resume=True)
    assert _differing(trained.output, tmp_path / "ckpt") == []


def test_a_run_interrupted_in_the_first_epoch_of_stage_2_ends_with_the_same_weights(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    # Stage 2 begins anew: its contrast heads must start as they would have.
    _interrupt(encoder_dir, task_data, tmp_path / "ckpt", TINY_SETTINGS, "stage 2: epoch 1")
    train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS, resume=True)
    assert _differing(trained.output, tmp_path / "ckpt") == []


def test_a_run_interrupted_after_stage_2_trains_nothing_any_more(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    _interrupt(encoder_dir, task_data, tmp_path / "ckpt", TINY_SETTINGS, "exit threshold")
    said: list[str] = []
    report = train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS, resume=True, say=said.append)
    assert _epochs(said) == []
    assert _differing(trained.output, tmp_path / "ckpt") == []
    assert report.dev == trained.report.dev


def test_a_finished_stage_1_is_not_trained_again_when_an_earlier_epoch_was_its_best(
    encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    _interrupt(encoder_dir, task_data, tmp_path / "ckpt", FIRST_EPOCH_BEST, "stage 2: epoch 1")
    said: list[str] = []
    train(str(encoder_dir), task_data, tmp_path / "ckpt", FIRST_EPOCH_BEST, resume=True, say=said.append)
    assert _epochs(said) == ["stage 2: epoch 1"]


def test_only_overwrite_forgets_an_interrupted_run(
    trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    _interrupt(encoder_dir, task_data, tmp_path / "ckpt", replace(TINY_SETTINGS, seed=8), "stage 1: epoch 2")
    said: list[str] = []
    with pytest.raises(InputError, match="holds an interrupted run") as caught:
        train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS)
    assert "--resume" in caught.value.hint and "--overwrite" in caught.value.hint
    train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS, overwrite=True, say=said.append)
    assert len(_epochs(said)) == 3
    assert _differing(trained.output, tmp_path / "ckpt") == []


def test_an_existing_output_is_refused_before_any_training(
    encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    output = tmp_path / "ckpt"
    output.mkdir()
    (output / "mine.txt").write_text("kept", encoding="utf-8")
    said: list[str] = []
    with pytest.raises(InputError, match="ckpt exists already"):
        train(str(encoder_dir), task_data, output, TINY_SETTINGS, say=said.append)
    assert said == []
    assert [file.name for file in tmp_path.iterdir()] == ["ckpt"]
    assert (output / "mine.txt").read_text(encoding="utf-8") == "kept"


def test_an_output_that_can_never_be_written_is_refused_with_a_named_error(
    encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match="file"):
        train(str(encoder_dir), task_data, tmp_path / "file" / "ckpt", TINY_SETTINGS)


def test_nothing_to_resume_is_said(encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing to resume in .*ckpt\.partial") as caught:
        train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS, resume=True)
    assert "without --resume" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_other_settings_labels_or_model_cannot_be_resumed_and_the_old_run_stays(
    encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    _interrupt(encoder_dir, task_data, tmp_path / "ckpt", TINY_SETTINGS, "stage 1: epoch 1")
    other = Path(shutil.copytree(encoder_dir, tmp_path / "other"))
    config = json.loads((other / "config.json").read_text(encoding="utf-8"))
    (other / "config.json").write_text(json.dumps({**config, "hidden_dropout_prob": 0.3}), encoding="utf-8")
    before = sorted(str(file) for file in tmp_path.rglob("*"))
    attempts = (
        (str(encoder_dir), task_data, replace(TINY_SETTINGS, stage2_learning_rate=0.5)),
        (str(encoder_dir), replace(task_data, labels=("calm", "noisy")), TINY_SETTINGS),
        (str(other), task_data, TINY_SETTINGS),
    )
    for model, data, settings in attempts:
        with pytest.raises(InputError, match="begun with another model, other texts, other settings"):
            train(model, data, tmp_path / "ckpt", settings, resume=True)
    assert sorted(str(file) for file in tmp_path.rglob("*")) == before


def test_other_texts_cannot_be_resumed(encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    # As with another --max-train-samples: epoch 1 would have seen some texts and epoch 2 others.
    _interrupt(encoder_dir, task_data, tmp_path / "ckpt", TINY_SETTINGS, "stage 1: epoch 2")
    fewer = replace(task_data, train=task_data.train.pick(range(20)))
    with pytest.raises(InputError, match="begun with"):
        train(str(encoder_dir), fewer, tmp_path / "ckpt", TINY_SETTINGS, resume=True)


def test_a_folder_in_the_place_of_the_working_files_is_not_touched(
    encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    (tmp_path / "ckpt.partial").mkdir()
    (tmp_path / "ckpt.partial" / "mine.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(InputError, match=r"ckpt\.partial is in the way"):
        train(str(encoder_dir), task_data, tmp_path / "ckpt", TINY_SETTINGS)
    assert (tmp_path / "ckpt.partial" / "mine.txt").read_text(encoding="utf-8") == "kept"


def test_an_encoder_that_is_refused_leaves_nothing_behind(task_data: TaskData, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be loaded"):
        train(str(tmp_path / "nowhere"), task_data, tmp_path / "ckpt", TINY_SETTINGS)
    assert list(tmp_path.iterdir()) == []
