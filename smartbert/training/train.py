"""Training from end to end: a pretrained encoder and labeled texts in, a checkpoint folder with its report out."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from smartbert.atomic_folder import atomic_folder, check_target
from smartbert.backbones import read_backbone_config
from smartbert.checkpoint_folder import GOLDEN_TEXTS_FILE, REPORT_FILE, load_tokenizer, write_golden_texts
from smartbert.data.task_data import TaskData
from smartbert.digest import encoder_digest
from smartbert.evaluation.curves import Summary, summarize
from smartbert.evaluation.evaluate import Evaluation, evaluate
from smartbert.evaluation.recording import record, tokenize
from smartbert.evaluation.thresholds import ThresholdChoice, choose_exit_threshold
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import PlainClassifier
from smartbert.progress import Say
from smartbert.trained_model import Classifier, backbone_config, saved_model
from smartbert.training.arms import ARMS, settings_of
from smartbert.training.processes import processes, this_process
from smartbert.training.settings import TrainingSettings
from smartbert.training.stages import run_stage
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ConfigError, InputError, ManifestError
from smartbert_runtime.package.decode import decode


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What a run did; the two summaries of `dev` differ only in exits: never, and at the chosen threshold.

    run: a digest of all that the run was made from, by which --resume knows that it is finished.
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


def train(
    model: str,
    data: TaskData,
    output: Path,
    settings: TrainingSettings,
    *,
    resume: bool = False,
    overwrite: bool = False,
    bar: bool = False,
    say: Say = lambda line: None,
) -> TrainingReport:
    """Train an arm (SmartBERT's two stages by default) and write the checkpoint folder `output`, whole or not at all.

    model: hub name or folder of a pretrained encoder.
    resume: go on from the last epoch that an interrupted run left in `OUTPUT.partial`; without it, and without
    `overwrite`, such a run is not thrown away but refused.
    Raises ConfigError for an encoder or setting that cannot be used, InputError for the output folder, TrainingError
    for a loss that is no number.
    """
    settings = settings_of(settings)
    identity = _identity(model, data, settings)
    work = output.parent / f"{output.name}.partial"
    process = this_process()  # one of several under torchrun: the main one alone writes outside the Trainer
    if resume and (finished := _finished(output, identity)) is not None:
        say(f"{output} is finished: nothing is left to resume")
        if process.is_main_process:
            _remove(work)
        return finished
    check_target(output, overwrite=overwrite)
    classifier = _fresh_model(model, data, settings)
    tokenizer = load_tokenizer(model, vocab_size=int(backbone_config(classifier)["vocab_size"]))
    if process.is_main_process:
        _check_work(work, identity, resume=resume, overwrite=overwrite)
    process.wait_for_everyone()
    splits = {
        name: tokenize(split, tokenizer, settings.max_length)
        for name, split in (("train", data.train), ("validation", data.validation), ("dev", data.dev))
    }
    say(
        f"{model}: {backbone_config(classifier)['num_hidden_layers']} layers; {len(data.train)} texts to train on, "
        f"{len(data.validation)} to choose with, {len(data.dev)} to report on"
    )
    logs = tuple(
        run_stage(stage, classifier, splits, tokenizer, settings, work, bar=bar, say=say)
        for stage in ((1,) if ARMS[settings.arm].plain else (1, 2))
    )
    report = _report(model, identity, classifier, data, splits, tokenizer, settings, logs, say)
    if process.is_main_process:
        with atomic_folder(output, overwrite=overwrite) as staging:
            saved_model(classifier).save_pretrained(staging)
            tokenizer.save_pretrained(staging)
            (staging / REPORT_FILE).write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
            lengths = [len(ids) for ids in splits["dev"]["input_ids"]]
            write_golden_texts(staging / GOLDEN_TEXTS_FILE, data.dev, lengths)
        _remove(work)
    return report


def _fresh_model(model: str, data: TaskData, settings: TrainingSettings) -> Classifier:
    names: dict[str, Any] = {
        "id2label": dict(enumerate(data.labels)),
        "label2id": {label: number for number, label in enumerate(data.labels)},
    }
    arm = ARMS[settings.arm]
    layers = int(read_backbone_config(model, settings.keep_layers)["num_hidden_layers"])
    if settings.target_layers >= layers:
        raise ConfigError(
            f"target_layers must be below the encoder's {layers} layers, not {settings.target_layers:g}",
            hint="change --target-layers",
        )
    if arm.plain:
        return PlainClassifier.from_backbone(
            model,
            pooling=settings.pooling,
            seed=settings.seed,
            keep_layers=settings.keep_layers,
            max_input_length=settings.max_length,
            **names,
        )
    return SmartBertForSequenceClassification.from_backbone(
        model,
        seed=settings.seed,
        keep_layers=settings.keep_layers,
        gates=arm.gated,
        **names,
        **settings.model_settings(),
    )


def _report(
    model: str,
    identity: Mapping[str, Any],
    classifier: Classifier,
    data: TaskData,
    splits: Mapping[str, Dataset],
    tokenizer: PreTrainedTokenizerFast,
    settings: TrainingSettings,
    logs: tuple[tuple[dict[str, float], ...], ...],
    say: Say,
) -> TrainingReport:
    """Choose the exit threshold on the validation texts, set it in the model's config, and measure on dev."""
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
        _say_choice(choice, settings, say)
        classifier.config.exit_threshold = choice.exit_threshold
        policy = replace(policy, exit_threshold=choice.exit_threshold)
    dev = evaluate(classifier, splits["dev"], tokenizer, data.labels, policy, skip_thresholds=())
    return TrainingReport(
        run=_digest(identity),
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


def _say_choice(choice: ThresholdChoice, settings: TrainingSettings, say: Say) -> None:
    kept = f"changes the answer of {choice.changed} of {choice.texts} validation texts"
    if choice.certain:
        sure = f"at most {settings.max_disagreement:.1%} of new texts at {settings.confidence:.0%} confidence"
    else:
        sure = f"too few texts to vouch for {settings.max_disagreement:.1%}, so the largest that changes none"
    say(f"exit threshold {choice.exit_threshold:.4g} {kept}: {sure}")


def _identity(model: str, data: TaskData, settings: TrainingSettings) -> dict[str, Any]:
    """What must be the same for a run to be resumed."""
    digest = hashlib.sha256(repr((data.train, data.validation, data.dev)).encode("utf-8", "surrogatepass")).hexdigest()
    return {
        "model": encoder_digest(model),
        "labels": list(data.labels),
        "texts": digest,
        "settings": asdict(settings),
        # Another number of them makes steps of another size, and the epochs done would be counted wrongly.
        "processes": processes(),
    }


def _digest(identity: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _finished(output: Path, identity: Mapping[str, Any]) -> TrainingReport | None:
    """The report of a checkpoint that this very run wrote before it was killed while it cleaned up; else None."""
    try:
        found = json.loads((output / REPORT_FILE).read_text(encoding="utf-8"))
        return decode(TrainingReport, found, where=REPORT_FILE) if found["run"] == _digest(identity) else None
    except (OSError, ValueError, KeyError, TypeError, ManifestError):
        return None  # no checkpoint, or of another version: not what this run wrote


def _remove(work: Path) -> None:
    """Take a working folder away at once, then piece by piece: what a kill leaves is not taken for a run."""
    for left in work.parent.glob(f".{work.name}.removed*"):
        shutil.rmtree(left, ignore_errors=True)
    if work.exists():
        aside = Path(tempfile.mkdtemp(prefix=f".{work.name}.removed", dir=work.parent))
        work.rename(aside / work.name)
        shutil.rmtree(aside, ignore_errors=True)


def _check_work(work: Path, identity: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Begin a working folder, or, to resume, see that it belongs to the same run."""
    note = work / "run.json"
    if resume and note.exists():
        try:
            begun = json.loads(note.read_text(encoding="utf-8"))
        except ValueError as err:
            raise InputError(f"{note} is damaged", hint="begin anew with --overwrite") from err
        if begun != json.loads(json.dumps(identity)):
            raise InputError(
                f"{work} was begun with another model, other texts, other settings or another number of processes",
                hint="repeat the first command with --resume added, or begin anew with --overwrite",
            )
        return
    just_begun = work.is_dir() and {file.name for file in work.iterdir()} <= {"run.partial"}
    if resume and not just_begun:
        raise InputError(f"there is nothing to resume in {work}", hint="start without --resume")
    if work.exists() and not note.exists() and not just_begun:
        raise InputError(f"{work} is in the way", hint="move it: the run keeps its working files there")
    if note.exists() and not overwrite:
        raise InputError(f"{work} holds an interrupted run", hint="--resume goes on with it, --overwrite begins anew")
    try:
        _remove(work)
        work.mkdir(parents=True)
        staged = work / "run.partial"
        staged.write_text(json.dumps(identity), encoding="utf-8")
        staged.replace(note)
    except OSError as err:
        raise InputError(f"{work} cannot be written: {err.strerror}", hint="check the path and its rights") from err
