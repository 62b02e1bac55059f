"""Shared by the tests of the training studies: one tiny task with real runs of four arms, seeds 50 and 51."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from studies.training.plan import Setup
from studies.training.runs import Run, do_run
from studies.training.tasks import TASKS
from tests.cli.conftest import call  # noqa: F401 - a fixture
from tests.smartbert.conftest import DEV_TEXTS, TRAIN_TEXTS, batch, task_data  # noqa: F401 - two of them fixtures

TINY = {
    "stage1_epochs": 3,
    "ungated_epochs": 1,
    "soft_epochs": 1,
    "stage2_epochs": 1,
    "learning_rate": 2e-3,
    "head_learning_rate": 1e-2,
    "stage2_learning_rate": 2e-2,
    "batch_size": 8,
    "max_length": 24,
    "head_width": 16,
    "gate_bias": -0.3,
    "validation_fraction": 0.2,
}


@dataclass(frozen=True, kw_only=True)
class Done:
    """Finished runs, and the folder with their figures."""

    setup: Setup
    results: Path
    work: Path
    runs: tuple[Run, ...]

    def figures(self, label: str, seed: int) -> dict[str, Any]:
        """The content of one run's file."""
        file = self.results / "trec6" / "encoder" / f"{label}-seed{seed}.json"
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found


@pytest.fixture(scope="session")
def setup(tmp_path_factory: pytest.TempPathFactory, encoder_dir: Path) -> Setup:
    """A hundred lines of tsv under the name of a known task."""
    data = tmp_path_factory.mktemp("tasks")
    (data / "trec6").mkdir()
    for name, texts in (("train", TRAIN_TEXTS), ("dev", DEV_TEXTS)):
        lines = ["sentence1\tlabel", *(f"{text}\t{'loud' if '!' in text else 'calm'}" for text in texts)]
        (data / "trec6" / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    encoder = data / "encoder"
    encoder.symlink_to(encoder_dir)
    return Setup(
        task=TASKS["trec6"], model=str(encoder), data=data, max_train_samples=None, note="a tiny encoder", settings=TINY
    )


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory, setup: Setup) -> Done:
    """smartbert, deebert, plain-mean and truncated-2 with seeds 50 and 51; read only."""
    folder = tmp_path_factory.mktemp("experiments")
    runs = []
    for seed in (50, 51):
        runs += [
            setup.run("smartbert", seed=seed),
            setup.run("deebert", arm="deebert", seed=seed),
            setup.run("plain-mean", arm="plain", pooling="mean", seed=seed),
        ]
    runs.append(setup.run("truncated-2", arm="truncated", keep_layers=2, seed=50))
    for run in runs:
        do_run(run, folder / "results", folder / "work", keep_checkpoint=False)
    return Done(setup=setup, results=folder / "results", work=folder / "work", runs=tuple(runs))
