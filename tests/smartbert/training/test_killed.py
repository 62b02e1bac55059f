"""A run killed with SIGKILL and resumed ends with the weights and figures of an unbroken one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from smartbert.cli.train import main
from smartbert.data.splits import TaskData
from smartbert.training.saved_epochs import MARKER
from smartbert.training.settings import TrainingSettings
from smartbert.training.train import train
from smartbert_runtime.errors import InputError
from tests.helpers import run_main
from tests.smartbert.conftest import TINY_SETTINGS, TrainedRun, differing_weights, epochs, train_in
from tests.smartbert.training.command import arguments
from tests.smartbert.training.killing import Point, train_until

# Three epochs: at least one is neither the last nor the best and is removed.
SETTINGS = replace(TINY_SETTINGS, stage1_epochs=3, stage2_epochs=2, batch_size=8)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path, task_data: TaskData) -> TrainedRun:
    """An unbroken run with SETTINGS; read only."""
    return train_in(tmp_path_factory.mktemp("unbroken"), encoder_dir, task_data, SETTINGS)


def _kill(
    point: Point, encoder: Path, data: TaskData, output: Path, *, resume: bool, settings: TrainingSettings = SETTINGS
) -> list[str]:
    """Train up to the point; the epochs that were gone through on the way."""
    run = train_until(point, encoder, data, output, settings, resume=resume)
    assert run.exit_code == -signal.SIGKILL, (point, run)
    assert not output.exists()
    return epochs(run.log)


def _saved(stage: Path) -> dict[str, bool]:
    """The stage's epochs in their order, and whether each is marked as complete."""
    folders = sorted(stage.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    return {folder.name: (folder / MARKER).exists() for folder in folders}


def _report(checkpoint: Path) -> dict[str, Any]:
    """training_report.json without the evaluations' timings."""
    report: dict[str, Any] = json.loads((checkpoint / "training_report.json").read_text(encoding="utf-8"))
    for log in ("stage1_log", "stage2_log"):
        timings = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
        report[log] = [{name: entry[name] for name in entry if name not in timings} for entry in report[log]]
    return report


def _assert_same(one: Path, other: Path) -> None:
    assert _report(one) == _report(other)
    assert differing_weights(one, other) == []


def test_killed_again_and_again(unbroken: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    output = tmp_path / "ckpt"
    stage1, stage2 = (tmp_path / "ckpt.partial" / name for name in ("stage1", "stage2"))
    steps = -(-len(task_data.train) // SETTINGS.batch_size)
    first, second = f"checkpoint-{steps}", f"checkpoint-{2 * steps}"

    # In the middle of writing the very first epoch: its weights are there, its state is not.
    point = Point(event="open", path=f"*/stage1/{first}/trainer_state.json")
    assert _kill(point, encoder_dir, task_data, output, resume=False) == ["stage 1: epoch 1"]
    assert _saved(stage1) == {first: False}
    assert (stage1 / first / "model.safetensors").is_file()

    # The first epoch again, then the second, all of it written but its marker: it does not count.
    point = Point(event="open", path=f"*/stage1/{second}/{MARKER}")
    assert _kill(point, encoder_dir, task_data, output, resume=True) == ["stage 1: epoch 1", "stage 1: epoch 2"]
    assert _saved(stage1) == {first: True, second: False}
    assert (stage1 / second / "trainer_state.json").is_file()

    # The second epoch again; killed in stage 2, its first epoch half written.
    point = Point(event="open", path=f"*/stage2/{first}/trainer_state.json")
    expected = ["stage 1: epoch 2", "stage 1: epoch 3", "stage 2: epoch 1"]
    assert _kill(point, encoder_dir, task_data, output, resume=True) == expected
    assert _saved(stage2) == {first: False}

    # Between the two epochs of stage 2, the first one just marked.
    point = Point(event="os.mkdir", path=f"*/stage2/{second}")
    assert _kill(point, encoder_dir, task_data, output, resume=True) == ["stage 2: epoch 1", "stage 2: epoch 2"]
    assert _saved(stage2) == {first: True}

    # All is trained and written, but not renamed to OUTPUT yet.
    point = Point(event="os.rename", path="*/.ckpt.*")
    assert _kill(point, encoder_dir, task_data, output, resume=True) == ["stage 2: epoch 2"]

    log: list[str] = []
    train(str(encoder_dir), task_data, output, SETTINGS, resume=True, log=log.append)
    assert epochs(log) == []
    _assert_same(output, unbroken.output)
    assert not output.with_name("ckpt.partial").exists()


def test_killed_while_removing_an_epoch(
    unbroken: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path
) -> None:
    output = tmp_path / "ckpt"
    unbroken.interrupt_at("stage 1: epoch 3", output)
    removing = Point(event="shutil.rmtree", path="*/stage1/checkpoint-*")
    _kill(removing, encoder_dir, task_data, output, resume=True)
    saved = _saved(tmp_path / "ckpt.partial" / "stage1")
    assert list(saved.values()).count(False) == 1  # the one being removed has lost its marker first
    assert list(saved.values())[-1]
    _kill(removing, encoder_dir, task_data, output, resume=True)  # once more, while what is left is removed
    train(str(encoder_dir), task_data, output, SETTINGS, resume=True)
    _assert_same(output, unbroken.output)


CLEANING = {
    "before the working folder is moved aside": Point(event="os.rename", path="*/ckpt.partial"),
    "while it is removed": Point(event="shutil.rmtree", path="*/.ckpt.partial.removed*"),
}


@pytest.mark.parametrize("moment", CLEANING)
def test_killed_when_all_is_written(
    unbroken: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path, moment: str
) -> None:
    output = tmp_path / "ckpt"
    unbroken.interrupt_at("exit threshold", output)
    killed = train_until(CLEANING[moment], encoder_dir, task_data, output, SETTINGS, resume=True)
    assert killed.exit_code == -signal.SIGKILL
    _assert_same(output, unbroken.output)
    log: list[str] = []
    report = train(str(encoder_dir), task_data, output, SETTINGS, resume=True, log=log.append)
    assert log == [f"{output} is finished: nothing is left to resume"]
    assert json.loads(json.dumps(asdict(report))) == json.loads((output / "training_report.json").read_text())
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["ckpt"]
    with pytest.raises(InputError, match="exists already"):  # it is finished for these settings only
        train(str(encoder_dir), task_data, output, replace(SETTINGS, seed=8), resume=True)


def test_killed_while_beginning(trained: TrainedRun, encoder_dir: Path, task_data: TaskData, tmp_path: Path) -> None:
    output = tmp_path / "ckpt"
    noting = Point(event="os.rename", path="*/run.partial")
    _kill(noting, encoder_dir, task_data, output, resume=False, settings=TINY_SETTINGS)
    assert [file.name for file in (tmp_path / "ckpt.partial").iterdir()] == ["run.partial"]
    train(str(encoder_dir), task_data, output, TINY_SETTINGS, resume=True)
    _assert_same(output, trained.output)


def test_command_killed_from_outside(
    trained: TrainedRun,
    encoder_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = arguments(encoder_dir, tmp_path, TINY_SETTINGS)
    command = [sys.executable, "-c", "from smartbert.cli.train import main; main()", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        # Somewhere in epoch 2, wherever that is by then.
        until = time.monotonic() + 300.0
        while process.poll() is None and not list(tmp_path.glob(f"ckpt.partial/stage1/*/{MARKER}")):
            assert time.monotonic() < until, "no epoch was saved"
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate()
    assert process.returncode == -signal.SIGKILL, err
    assert not (tmp_path / "ckpt").exists()

    again = run_main(main, *options, "--resume", monkeypatch=monkeypatch, capsys=capsys)
    assert again.code == 0, again.err
    assert epochs(again.err.splitlines())[0] != "stage 1: epoch 1"
    _assert_same(tmp_path / "ckpt", trained.output)
