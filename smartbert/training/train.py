"""Training from end to end: a pretrained encoder and labeled texts in, a checkpoint folder with its report out."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from smartbert.activations.ranges import write_ranges
from smartbert.atomic_folder import atomic_folder, check_target
from smartbert.backbones import read_backbone_config
from smartbert.checkpoint_folder import (
    CHECK_TEXTS_FILE,
    GOLDEN_TEXTS_FILE,
    REPORT_FILE,
    load_tokenizer,
    write_check_texts,
    write_golden_texts,
)
from smartbert.data.sources import DataSource
from smartbert.data.splits import TaskData, load_task
from smartbert.evaluation.recording import tokenize
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import PlainClassifier
from smartbert.trained_model import Classifier, backbone_config, saved_model
from smartbert.training.activation_ranges import ranges_of_training_texts
from smartbert.training.arms import ARMS, settings_of
from smartbert.training.processes import this_process
from smartbert.training.progress import Log
from smartbert.training.report import TrainingReport, make_report, read_own_report
from smartbert.training.settings import TrainingSettings
from smartbert.training.stages import run_stage
from smartbert.training.working_folder import (
    identity_digest,
    open_working_folder,
    remove_working_folder,
    run_identity,
    working_folder,
)
from smartbert_runtime.errors import ConfigError


def train(
    model: str,
    data: TaskData | DataSource,
    output: Path | str,
    settings: TrainingSettings | None = None,
    *,
    resume: bool = False,
    overwrite: bool = False,
    bar: bool = False,
    log: Log = lambda line: None,
) -> TrainingReport:
    """Train an arm (SmartBERT's two stages by default) and write the checkpoint folder `output`, whole or not at all.

    model: hub name or folder of a pretrained encoder.
    data: files or a data set, or what was read of them. settings: None is the recipe "best".
    resume: go on from the last epoch that an interrupted run left in `OUTPUT.partial`. Without it, and without
    `overwrite`, such a run is refused rather than thrown away.
    log: receives the lines of the training log: the texts' counts, each epoch's figures, the chosen threshold.
    Raises ConfigError for an encoder or setting that cannot be used, InputError for the output folder, TrainingError
    for a loss that is not a number.
    """
    settings, output = settings_of(settings or TrainingSettings()), Path(output)
    if isinstance(data, DataSource):
        data = load_task(data, validation_fraction=settings.validation_fraction, seed=settings.seed)
    identity = run_identity(model, data, settings)
    work = working_folder(output)
    process = this_process()  # one of several under torchrun: only the main one writes outside the Trainer
    # A run may be killed after it has written its checkpoint, while it cleans up.
    if resume and (finished := read_own_report(output, identity_digest(identity))) is not None:
        log(f"{output} is finished: nothing is left to resume")
        if process.is_main_process:
            remove_working_folder(work)
        return finished
    check_target(output, overwrite=overwrite)
    classifier = _fresh_model(model, data, settings)
    saved_model(classifier).config.text_pairs = data.train.pairs is not None
    tokenizer = load_tokenizer(model, vocab_size=int(backbone_config(classifier)["vocab_size"]))
    tokenizer.model_max_length = settings.max_length  # so that the saved one cuts texts as training does
    if process.is_main_process:
        open_working_folder(work, identity, resume=resume, overwrite=overwrite)
    process.wait_for_everyone()
    splits = {
        name: tokenize(split, tokenizer, settings.max_length)
        for name, split in (("train", data.train), ("validation", data.validation), ("dev", data.dev))
    }
    for note in data.notes:
        log(note)
    log(
        f"{model}: {backbone_config(classifier)['num_hidden_layers']} layers; {len(data.train)} texts to train on, "
        f"{len(data.validation)} to choose with, {len(data.dev)} to report on"
    )
    logs = tuple(
        run_stage(stage, classifier, splits, tokenizer, settings, work, bar=bar, log=log)
        for stage in ((1,) if ARMS[settings.arm].plain else (1, 2))
    )
    report = make_report(model, identity_digest(identity), classifier, data, splits, tokenizer, settings, logs, log)
    if process.is_main_process:
        ranges = ranges_of_training_texts(classifier, splits["train"], tokenizer, seed=settings.seed)
        with atomic_folder(output, overwrite=overwrite) as staging:
            saved_model(classifier).save_pretrained(staging)
            tokenizer.save_pretrained(staging)
            (staging / REPORT_FILE).write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")
            if settings.keep_texts:
                kept = data.validation, data.labels, settings.keep_texts
                write_check_texts(staging / CHECK_TEXTS_FILE, *kept)
            lengths = [len(ids) for ids in splits["dev"]["input_ids"]]
            write_ranges(staging, ranges)
            write_golden_texts(staging / GOLDEN_TEXTS_FILE, data.dev, lengths)
        remove_working_folder(work)
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
