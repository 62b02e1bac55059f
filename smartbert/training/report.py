"""The training report: chooses the exit threshold, evaluates the model on the dev texts and records how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from smartbert.checkpoint_folder import REPORT_FILE
from smartbert.data.splits import TaskData
from smartbert.evaluation.curves import Summary, summarize
from smartbert.evaluation.evaluate import Evaluation, evaluate
from smartbert.evaluation.recording import record
from smartbert.evaluation.thresholds import ThresholdChoice, choose_exit_threshold
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.trained_model import Classifier
from smartbert.training.progress import Log
from smartbert.training.settings import TrainingSettings
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ManifestError
from smartbert_runtime.package.decode import decode


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What a run did; the two summaries of `dev` differ only in exits: at the chosen threshold, and none.

    run: digest of everything that the run was made from, by which --resume recognizes a finished run.
    dev_evaluation: MAC and the curves of the dev texts. exit_threshold_choice: None for a plain classifier.
    """

    run: str
    base_model: str
    settings: TrainingSettings
    versions: dict[str, str]
    texts: dict[str, int]
    labels: tuple[str, ...]
    skip_threshold: float
    exit_threshold: float
    exit_threshold_choice: ThresholdChoice | None
    validation: Summary
    dev: Summary
    dev_full_depth: Summary
    dev_evaluation: Evaluation
    stage1_log: tuple[dict[str, float], ...]
    stage2_log: tuple[dict[str, float], ...]


def read_own_report(output: Path, run: str) -> TrainingReport | None:
    """The report in `output` where this very run (by its digest) wrote it, else None."""
    try:
        stored = json.loads((output / REPORT_FILE).read_text(encoding="utf-8"))
        return decode(TrainingReport, stored, where=REPORT_FILE) if stored["run"] == run else None
    except (OSError, ValueError, KeyError, TypeError, ManifestError):
        return None  # no checkpoint, or one of another version: not what this run wrote


def make_report(
    model: str,
    run: str,
    classifier: Classifier,
    data: TaskData,
    splits: Mapping[str, Dataset],
    tokenizer: PreTrainedTokenizerFast,
    settings: TrainingSettings,
    logs: tuple[tuple[dict[str, float], ...], ...],
    log: Log,
) -> TrainingReport:
    """Choose the exit threshold on the validation texts, set it in the model's config, and evaluate on dev."""
    policy = Policy(skip_threshold=settings.skip_threshold)
    validation = record(classifier, splits["validation"], tokenizer, policy)
    choice = None
    if isinstance(classifier, SmartBertForSequenceClassification):
        choice = choose_exit_threshold(
            validation,
            settings.skip_threshold,
            max_disagreement=settings.max_disagreement,
            confidence=settings.confidence,
        )
        _log_choice(choice, settings, log)
        classifier.config.exit_threshold = choice.exit_threshold
        policy = replace(policy, exit_threshold=choice.exit_threshold)
    dev = evaluate(classifier, splits["dev"], tokenizer, data.labels, policy, skip_thresholds=())
    return TrainingReport(
        run=run,
        base_model=Path(model).name if Path(model).exists() else model,
        settings=settings,
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
        texts={name: len(split) for name, split in splits.items()},
        labels=data.labels,
        skip_threshold=policy.skip_threshold,
        exit_threshold=policy.exit_threshold,
        exit_threshold_choice=choice,
        validation=summarize(validation, policy, data.labels),
        dev=dev.summary,
        dev_full_depth=dev.full_depth,
        dev_evaluation=dev,
        stage1_log=logs[0],
        stage2_log=logs[1] if len(logs) > 1 else (),
    )


def _log_choice(choice: ThresholdChoice, settings: TrainingSettings, log: Log) -> None:
    kept = f"changes the answer of {choice.changed} of {choice.texts} validation texts"
    if choice.certain:
        sure = f"at most {settings.max_disagreement:.1%} of new texts at {settings.confidence:.0%} confidence"
    else:
        sure = f"too few texts to vouch for {settings.max_disagreement:.1%}, so the largest that changes none"
    log(f"exit threshold {choice.exit_threshold:.4g} {kept}: {sure}")
