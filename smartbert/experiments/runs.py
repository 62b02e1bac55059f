"""One run of an experiment: train, measure on dev, write one small JSON file; a run that is there is not repeated."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from smartbert.backbones import read_backbone_config
from smartbert.checkpoint import load_classifier
from smartbert.classifier import input_limit, policy_of
from smartbert.data import TaskData, load_task
from smartbert.evaluation.curves import CurvePoint, bracket
from smartbert.evaluation.decisions import Recording, decide, decide_by_patience
from smartbert.evaluation.evaluate import SKIP_THRESHOLDS, measure
from smartbert.evaluation.macs import plain_macs
from smartbert.evaluation.recording import record_passes, tokenize
from smartbert.experiments.tasks import Task
from smartbert.progress import Say
from smartbert.training.arms import settings_of
from smartbert.training.settings import TrainingSettings
from smartbert.training.train import train
from smartbert_runtime.policy import Policy

# Fewer MAC than plain fine-tuning by these factors: where arms are compared text by text.
SAVINGS = (1.5, 2.0, 3.0, 4.0)
# How a point of a curve lies in a run's file: its fields in their order, macs as a share of plain fine-tuning's.
CURVE_COLUMNS = tuple(column.name for column in fields(CurvePoint))


@dataclass(frozen=True, kw_only=True)
class Run:
    """What is trained: an arm's settings (its seed among them) on a task's texts, from an encoder.

    label: the arm's name in tables. start: a run whose checkpoint is trained on, in place of the encoder `model`.
    note: what has to be said about the encoder beside every number.
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
        """Where the run's figures lie."""
        return results / self.task.name / self.backbone / f"{self._name}.json"

    def checkpoint(self, work: Path) -> Path:
        """Where its checkpoint is written."""
        return work / self.task.name / self.backbone / self._name

    @property
    def _name(self) -> str:
        return f"{self.label}-seed{self.settings.seed}"


def is_done(run: Run, results: Path) -> bool:
    """Whether the figures of just this run, its settings and number of texts the same, lie in `results`."""
    file = run.file(results)
    if not file.is_file():
        return False
    found = json.loads(file.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps(asdict(settings_of(run.settings))))
    return bool(found["settings"] == wanted and found["max_train_samples"] == run.max_train_samples)


def do_run(run: Run, results: Path, work: Path, *, keep_checkpoint: bool, say: Say) -> None:
    """Train (or go on with what an interrupted run left in `work`), measure, and write the figures."""
    began = time.monotonic()
    if run.start is not None:
        _train(run.start, run.model, _data(run.start), work, say)
    data = _data(run)
    checkpoint = _train(run, run.model if run.start is None else str(run.start.checkpoint(work)), data, work, say)
    trained_s = time.monotonic() - began
    figures = {
        "task": run.task.name,
        "metric": run.task.metric,
        "arm": run.label,
        "backbone": run.backbone,
        "note": run.note,
        "seed": run.settings.seed,
        "settings": asdict(settings_of(run.settings)),
        "max_train_samples": run.max_train_samples,
        "texts": {"train": len(data.train), "validation": len(data.validation), "dev": len(data.dev)},
        **_measure(checkpoint, data, run.model),
        "conditions": {**_conditions(), "training_s": round(trained_s)},
    }
    _write_whole(run.file(results), figures)
    if not keep_checkpoint:
        for made in (run, run.start):
            if made is not None:
                shutil.rmtree(made.checkpoint(work))


def _data(run: Run) -> TaskData:
    source = run.task.source(run.data, run.max_train_samples)
    return load_task(source, validation_fraction=run.settings.validation_fraction, seed=run.settings.seed)


def _train(run: Run, model: str, data: TaskData, work: Path, say: Say) -> Path:
    """The run's checkpoint, trained from `model` unless it lies in `work`."""
    checkpoint = run.checkpoint(work)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    partial = checkpoint.with_name(f"{checkpoint.name}.partial")
    if not (checkpoint.is_dir() and _trained_with(checkpoint) == settings_of(run.settings)):
        resume = (partial / "run.json").exists()
        train(model, data, checkpoint, run.settings, resume=resume, overwrite=True, say=say)
    return checkpoint


def _trained_with(checkpoint: Path) -> TrainingSettings:
    report = json.loads((checkpoint / "training_report.json").read_text(encoding="utf-8"))
    return TrainingSettings(**report["settings"])


def _measure(checkpoint: Path, data: TaskData, encoder: str) -> dict[str, Any]:
    """Every curve of the checkpoint on the dev texts, and which texts are right at SAVINGS and at full depth.

    MAC shares are of a plain classifier on the whole encoder, also where the checkpoint has fewer layers.
    """
    report = json.loads((checkpoint / "training_report.json").read_text(encoding="utf-8"))
    model, tokenizer = load_classifier(checkpoint)
    split = tokenize(data.dev, tokenizer, input_limit(model))
    policy = policy_of(model)
    passes = record_passes(model, split, tokenizer, policy, skip_thresholds=SKIP_THRESHOLDS)
    evaluation = measure(model, passes, data.labels, policy)
    plain = float(plain_macs(read_backbone_config(encoder), len(data.labels), passes.tokens_r).mean())
    right = {"full depth": _right(passes.as_asked, "entropy", policy, 0.0)}
    at: dict[str, dict[str, Any]] = {}
    for name in ("both", "gates off", "patience"):
        if name in evaluation.curves:
            recording = passes.as_asked if name == "both" else passes.gates_off
            at[name] = _at_savings(recording, name, evaluation.curves[name], plain, policy)
    return {
        "layers": evaluation.layers,
        "mean_tokens": round(evaluation.mean_tokens, 2),
        "plain_macs": round(plain),
        "validation": report["validation"],
        "exit_threshold": evaluation.exit_threshold,
        "skip_threshold": evaluation.skip_threshold,
        "configured": {**asdict(evaluation.summary), "mac_share": evaluation.macs / plain},
        "full_depth": {
            **asdict(evaluation.full_depth),
            "mac_share": evaluation.full_depth_macs / plain,
        },
        "curves": {name: _rows(points, plain) for name, points in evaluation.curves.items()},
        "right": right,
        "at": at,
    }


def _at_savings(
    recording: Recording, name: str, points: tuple[CurvePoint, ...], plain: float, policy: Policy
) -> dict[str, Any]:
    """For each saving the two points of the curve around it: their settings, who is right, the share at the dearer."""
    rule = "patience" if name == "patience" else "entropy"
    rest = Policy(skip_threshold=policy.skip_threshold, no_skip=name != "both")
    found: dict[str, Any] = {}
    for saving in SAVINGS:
        place = bracket(points, plain / saving)
        if place is not None:
            cheap, dear, share = place
            found[f"{saving:g}"] = {
                "values": [points[cheap].value, points[dear].value],
                "right": [_right(recording, rule, rest, points[index].value) for index in (cheap, dear)],
                "share": round(share, 6),
            }
    return found


def _right(recording: Recording, rule: str, policy: Policy, value: float) -> str:
    """One digit a text: 1 where the answer is right."""
    if rule == "patience":
        decisions = decide_by_patience(recording, policy, int(value))
    else:
        decisions = decide(
            recording,
            Policy(skip_threshold=policy.skip_threshold, no_skip=policy.no_skip, exit_threshold=value),
        )
    return "".join(np.where(decisions.answers_r == recording.label_ids_r, "1", "0"))


def _rows(points: tuple[CurvePoint, ...], plain: float) -> list[list[float]]:
    """The points as rows of CURVE_COLUMNS, those left out at which nothing changes."""
    rows: list[list[float]] = []
    for point in points:
        row = [
            point.value,
            round(point.accuracy, 5),
            round(point.f1, 5),
            round(point.matthews, 5),
            round(point.mean_layers_run, 3),
            round(point.macs / plain, 5),
        ]
        if not rows or row[1:] != rows[-1][1:]:
            rows.append(row)
    return rows


def _conditions() -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": "cuda" if torch.cuda.is_available() else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _write_whole(file: Path, figures: Mapping[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = file.with_suffix(".partial")
    # A line a key: long lists stay out of the way of whoever reads the file or its changes.
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in figures.items())
    staged.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    staged.replace(file)
