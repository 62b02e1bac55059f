"""One run of a study: train, evaluate on dev, write one small JSON file; a run with a file is not repeated."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock, Timeout

from smartbert.data.splits import TaskData, load_task
from smartbert.digest import digest_of, encoder_digest
from smartbert.training.arms import settings_of
from smartbert.training.progress import Log
from smartbert.training.settings import TrainingSettings
from smartbert.training.stages import trains_in_bf16
from smartbert.training.train import train
from smartbert_runtime.errors import ConfigError, InputError
from studies.training.figures import dev_figures
from studies.training.tasks import TEXT_FILES, Task

digest_once = cache(digest_of)
encoder_digest_once = cache(encoder_digest)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is trained: an arm's settings (including the seed) on a task's texts, from an encoder.

    label: the arm's name in tables. start: a run whose checkpoint is trained further, instead of the encoder `model`.
    note: a remark on the encoder, shown with the table.
    """

    task: Task
    model: str
    start: Run | None
    label: str
    settings: TrainingSettings
    data: Path | None
    max_train_samples: int | None
    note: str

    @property
    def backbone(self) -> str:
        """The encoder's name in tables."""
        return Path(self.model).name

    def file(self, results: Path) -> Path:
        """The file of the run's figures."""
        return results / self.task.name / self.backbone / f"{self._name}.json"

    def checkpoint(self, work: Path) -> Path:
        """Its checkpoint's folder, a different one for each identity, so that none is mistaken for another."""
        digest = hashlib.sha256(json.dumps(self.identity(), sort_keys=True).encode()).hexdigest()
        return work / self.task.name / self.backbone / f"{self._name}-{digest[:8]}"

    def identity(self) -> dict[str, Any]:
        """What equal runs have in common: settings, texts, encoder, and what they start from."""
        texts = self.task.dataset if self.data is None else digest_once(self.data / self.task.name, TEXT_FILES)
        return {
            "settings": {**asdict(settings_of(self.settings)), "mixed_precision": _mixed(self.settings)},
            "max_train_samples": self.max_train_samples,
            "texts_from": texts,
            "encoder": encoder_digest_once(self.model),
            "start": None if self.start is None else self.start.identity(),
        }

    @property
    def _name(self) -> str:
        return f"{self.label}-seed{self.settings.seed}"


def is_done(run: Run, results: Path) -> bool:
    """Whether the figures of exactly this run are in `results`; InputError for a file that is not a run's."""
    file = run.file(results)
    return file.is_file() and _normalized(read_figures(file)["run"]) == run.identity()


def _normalized(identity: dict[str, Any]) -> dict[str, Any]:
    """A file's identity, with settings that its arm does not use at today's defaults, as in a new run's identity."""
    given = dict(identity["settings"])
    if "precision" in given:  # what `mixed_precision` was called
        former = given.pop("precision")
        given["mixed_precision"] = "no" if former == "fp32" else former
    try:
        settings = settings_of(TrainingSettings(**given))
    except (TypeError, ConfigError):
        return {}  # of another version, with other settings
    start = identity["start"]
    return {**identity, "settings": asdict(settings), "start": None if start is None else _normalized(start)}


def read_figures(file: Path) -> dict[str, Any]:
    """A run's file; InputError when it is not one."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not {"run", "arm", "seed", "curves"} <= set(found):
            raise ValueError("it lacks what a run writes")
    except (OSError, ValueError, TypeError) as err:
        raise InputError(f"{file} is not a run's file: {err}", hint="remove it: the run is then repeated") from err
    return found


def do_run(
    run: Run, results: Path, work: Path, *, keep_checkpoint: bool, restart: bool = False, log: Log = lambda line: None
) -> None:
    """Train (or resume what an interrupted run left in `work`, unless `restart`), evaluate, and write the figures.

    Raises InputError where another process is training the same.
    """
    conditions = _conditions(run.settings)  # now: a commit made during the run is not the code that it runs
    model, made = run.model, list[Path]()
    if run.start is not None:
        model = str(_train(run.start, run.model, _data(run.start), work, made, restart, log))
    data = _data(run)
    checkpoint = _train(run, model, data, work, made, restart, log)
    found = {
        "task": run.task.name,
        "metric": run.task.metric,
        "arm": run.label,
        "backbone": run.backbone,
        "note": run.note,
        "seed": run.settings.seed,
        "run": run.identity(),
        **dev_figures(checkpoint, data, run.model),
        "conditions": conditions,
    }
    _write_whole(run.file(results), found)
    if not keep_checkpoint:
        for folder in made:
            shutil.rmtree(folder)


def _data(run: Run) -> TaskData:
    source = run.task.source(run.data, run.max_train_samples)
    return load_task(source, validation_fraction=run.settings.validation_fraction, seed=run.settings.seed)


def _train(run: Run, model: str, data: TaskData, work: Path, made: list[Path], restart: bool, log: Log) -> Path:
    """The run's checkpoint, trained from `model` unless it is in `work`; added to `made` if it was trained now."""
    checkpoint = run.checkpoint(work)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    # A run in progress looks like an interrupted one, and studies share runs.
    lock = FileLock(checkpoint.with_name(f"{checkpoint.name}.lock"), timeout=0)
    try:
        with lock:
            if not checkpoint.is_dir():
                interrupted = (checkpoint.with_name(f"{checkpoint.name}.partial") / "run.json").exists()
                train(
                    model, data, checkpoint, run.settings, resume=interrupted and not restart, overwrite=True, log=log
                )
                made.append(checkpoint)
    except Timeout as err:
        raise InputError(
            f"{checkpoint} is being trained by another process", hint="wait for it, then repeat the command"
        ) from err
    return checkpoint


def _conditions(settings: TrainingSettings) -> dict[str, Any]:
    return {
        "code": _code(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "precision": "bf16" if trains_in_bf16(settings) else "fp32",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _mixed(settings: TrainingSettings) -> str:
    """What `auto` means here: figures from a GPU and from a CPU are not comparable."""
    return "bf16" if trains_in_bf16(settings) else "no"


def _code() -> str:
    """The commit of the running code, with "-dirty" if it was changed; the version where there is no repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=10"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return importlib.metadata.version("smartbert")


def _write_whole(file: Path, found: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = file.with_suffix(".partial")
    # One line per key keeps long lists out of the way of someone who reads the file or its diff.
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in found.items())
    staged.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    staged.replace(file)
