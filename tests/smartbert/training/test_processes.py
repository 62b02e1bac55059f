"""processes.py: two processes under torchrun train as one does with twice the batch, and stop together."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertModel

from smartbert.data.splits import TaskData
from smartbert.training.processes import mean_over_processes, processes, share_of_mean, this_process
from smartbert.training.settings import TrainingSettings
from smartbert.training.train import train
from tests.conftest import SENTENCES, make_encoder_config, make_model, make_tokenizer
from tests.smartbert.conftest import TINY_SETTINGS
from tests.smartbert.training import processes_worker as worker
from tests.smartbert.training.command import arguments

# What is promised; float32 sums in another order differ by less than 1e-6 here.
LOSS_TOLERANCE = 1e-4
STEPS_AN_EPOCH = 6

# Every term of both stages' losses, and steps so large that 12 of them change the loss.
ALL_TERMS = replace(
    TINY_SETTINGS,
    stage1_epochs=2,
    soft_epochs=1,
    gate_lambda=0.5,
    eta1=0.3,
    eta2=0.3,
    joint_exits=0.5,
    distillation=0.3,
    learning_rate=1e-3,
    head_learning_rate=5e-3,
    stage2_learning_rate=5e-3,
)
# The other penalty, labels of different weight, steps of two batches, and an ungated phase.
WEIGHTED = replace(
    ALL_TERMS,
    class_weights="balanced",
    target_layers=2.0,
    stage1_epochs=3,
    ungated_epochs=1,
    soft_epochs=1,
    gradient_accumulation_steps=2,
)
RUNS = {"all terms": ALL_TERMS, "weighted": WEIGHTED}


@dataclass(frozen=True, kw_only=True)
class TwoProcesses:
    """What a torchrun of processes_worker.py left in `folder`, wrote, and ended with."""

    folder: Path
    results: dict[str, Any]
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def command_settings() -> TrainingSettings:
    """For one process; each of two takes half of the batch."""
    return replace(TINY_SETTINGS, batch_size=8)


@pytest.fixture(scope="module")
def still_encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained encoder without dropout; read only."""
    folder = tmp_path_factory.mktemp("still")
    config = make_encoder_config()
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
    torch.manual_seed(1)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def two(
    tmp_path_factory: pytest.TempPathFactory, still_encoder_dir: Path, command_settings: TrainingSettings
) -> TwoProcesses:
    """Everything that two processes have to show, in one torchrun: starting them takes longer than their work."""
    folder = tmp_path_factory.mktemp("two")
    make_model().save_pretrained(folder / worker.CHECKPOINT)
    make_tokenizer().save_pretrained(folder / worker.CHECKPOINT)
    # Of all lengths, so that the processes' batches differ in their tokens: 48 texts, six steps of eight.
    pairs = [f"{SENTENCES[number]} {SENTENCES[number - 1]}" for number in range(len(SENTENCES))]
    texts = {"train": [*SENTENCES, *pairs], "validation": list(SENTENCES[::2])}
    (folder / worker.TEXTS).write_text(json.dumps(texts), encoding="utf-8")
    settings = {name: asdict(given) for name, given in RUNS.items()}
    (folder / worker.SETTINGS).write_text(json.dumps(settings), encoding="utf-8")
    options = arguments(still_encoder_dir, folder, replace(command_settings, batch_size=4))
    (folder / worker.COMMAND).write_text(json.dumps(options), encoding="utf-8")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    run = subprocess.run(
        [*torchrun, worker.__file__, str(folder)], capture_output=True, text=True, timeout=600, check=False
    )
    results = folder / worker.RESULTS
    assert results.exists(), run.stderr
    return TwoProcesses(
        folder=folder,
        results=json.loads(results.read_text(encoding="utf-8")),
        code=run.returncode,
        out=run.stdout,
        err=run.stderr,
    )


def _largest_difference(one: list[float], two: list[float]) -> float:
    return max(abs(first - second) for first, second in zip(one, two, strict=True))


def test_means_of_one_process() -> None:
    value = torch.tensor(3.0)
    assert processes() == 1
    assert this_process().is_main_process
    assert mean_over_processes(value) is value
    assert share_of_mean(torch.tensor(6.0), torch.tensor(4)) == 1.5
    assert share_of_mean(torch.tensor(0.0), torch.tensor(0)) == 0.0  # a batch without a counted token


def test_means_of_two_processes(two: TwoProcesses) -> None:
    # theta = 2: 1 / mean(theta, 2 theta) = 2 / (3 theta), and (3 + 5) theta^2 / (1 + 3 texts) = 2 theta^2.
    assert two.results["means"] == pytest.approx(
        {"mean": 1 / 3, "mean gradient": -1 / 6, "share": 8.0, "share gradient": 8.0}
    )


@pytest.mark.parametrize(
    ("name", "batches"),
    [
        ("all terms", 18),  # 6 steps soft, 6 hard, 6 of stage 2
        ("weighted", 48),  # 6 steps ungated, 6 soft, 6 hard, 6 of stage 2, of two batches each
    ],
)
def test_losses_match_one_process(two: TwoProcesses, tmp_path: Path, name: str, batches: int) -> None:
    one = worker.train_both_stages(two.folder, tmp_path, RUNS[name])
    together = two.results[name]
    assert len(one["losses"]) == batches
    assert all(math.isfinite(loss) for loss in one["losses"])
    assert max(one["losses"]) - min(one["losses"]) > 0.5  # the steps have changed something
    assert _largest_difference(one["losses"], together["losses"]) < LOSS_TOLERANCE
    for of_one, of_two in zip(one["evaluations"], together["evaluations"], strict=True):
        assert of_two == pytest.approx(of_one, abs=LOSS_TOLERANCE)


def test_unreduced_losses_differ(two: TwoProcesses) -> None:
    # The proof that the test above can fail: from the first step on, and by far more than rounding.
    reduced, unreduced = two.results["all terms"]["losses"], two.results["unreduced"]["losses"]
    assert abs(reduced[0] - unreduced[0]) > 100 * LOSS_TOLERANCE
    assert _largest_difference(reduced[:STEPS_AN_EPOCH], unreduced[:STEPS_AN_EPOCH]) > 500 * LOSS_TOLERANCE


def test_nan_of_one_process_stops_both(two: TwoProcesses) -> None:
    # The other one's loss was a number: it would have gone on and waited for a process that is not there any more.
    assert two.results["poisoned"] == ["the loss of step 3 is nan; no epoch was saved yet"] * 2


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="a process's threads are listed on Linux only")
def test_connection_threads_end(two: TwoProcesses) -> None:
    # One of them that releases a tensor after that aborts the process, one time in many.
    for rank in range(2):
        names = json.loads((two.folder / worker.THREADS.format(rank=rank)).read_text(encoding="utf-8"))
        assert names
        assert not [name for name in names if "gloo" in name]


def test_command_under_torchrun(
    two: TwoProcesses,
    still_encoder_dir: Path,
    task_data: TaskData,
    tmp_path: Path,
    command_settings: TrainingSettings,
) -> None:
    assert two.code == 0, two.err
    assert two.out.count("dev accuracy") == 1
    assert two.err.count("stage 1: epoch 1") == 1
    assert {file.name for file in two.folder.glob("*ckpt*")} == {"ckpt"}  # no ckpt.partial, no staging folder
    together = json.loads((two.folder / "ckpt" / "training_report.json").read_text(encoding="utf-8"))
    train(str(still_encoder_dir), task_data, tmp_path / "ckpt", command_settings)
    alone = json.loads((tmp_path / "ckpt" / "training_report.json").read_text(encoding="utf-8"))
    assert together["exit_threshold"] == alone["exit_threshold"]
    assert together["dev"] == alone["dev"]
    losses = [[entry["eval_loss"] for entry in report["stage1_log"]] for report in (alone, together)]
    assert _largest_difference(*losses) < LOSS_TOLERANCE
