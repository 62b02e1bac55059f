"""One training stage, run to its end: the phases of stage 1, the Trainer's arguments, class weights, precision."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    PreTrainedTokenizerFast,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from smartbert.plain_classifier import PlainClassifier
from smartbert.trained_model import Classifier, label_names
from smartbert.training.best_epoch import BEST_BY, epoch_figures
from smartbert.training.objectives import Objective, Phase, PlainFineTuning, Stage1, Stage2
from smartbert.training.progress import Log, Progress
from smartbert.training.saved_epochs import MarkAndRotate, last_complete, remove_incomplete
from smartbert.training.settings import TrainingSettings
from smartbert.training.stage_trainer import StageTrainer
from smartbert_runtime.errors import ConfigError


class Phases(TrainerCallback):
    """Moves stage 1 from ungated to soft to hard; counts steps, so a resumed run changes phase at the same one."""

    def __init__(self, objective: Stage1, settings: TrainingSettings) -> None:
        self.objective = objective
        self.ungated_share = settings.ungated_epochs / settings.stage1_epochs
        self.soft_share = settings.soft_epochs / settings.stage1_epochs

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The phase that this step belongs to."""
        if state.global_step < round(self.ungated_share * state.max_steps):
            self.objective.phase = Phase.UNGATED
        elif state.global_step < round((self.ungated_share + self.soft_share) * state.max_steps):
            self.objective.phase = Phase.SOFT
        else:
            self.objective.phase = Phase.HARD


def run_stage(
    stage: int,
    model: Classifier,
    splits: Mapping[str, Dataset],
    tokenizer: PreTrainedTokenizerFast,
    settings: TrainingSettings,
    work: Path,
    *,
    bar: bool,
    log: Log,
) -> tuple[dict[str, float], ...]:
    """Train stage 1 or 2 to its end, from its last saved epoch in `work` if there is one; the log of its epochs.

    A plain classifier has stage 1 only. Raises TrainingError when the loss or a weight is not a number any more.
    """
    # A resumed run may begin here: the stage's contrast heads must not depend on what was drawn before.
    set_seed(settings.seed + stage)
    folder = work / f"stage{stage}"
    objective = _objective(stage, model, splits["train"], settings)
    trainer = StageTrainer(
        objective,
        backbone_rate=settings.learning_rate,
        head_rate=settings.head_learning_rate if stage == 1 else settings.stage2_learning_rate,
        args=_arguments(stage, settings, folder),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=epoch_figures(objective, settings),
        callbacks=[Progress(f"stage {stage}", log, bar=bar), MarkAndRotate()],
    )
    for printer in (transformers.PrinterCallback, transformers.trainer_callback.ProgressCallback):
        trainer.remove_callback(printer)
    if isinstance(objective, Stage1):
        trainer.add_callback(Phases(objective, settings))
    remove_incomplete(folder)
    last = last_complete(folder)
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
    objective.requires_grad_(True)
    return tuple(entry for entry in trainer.state.log_history if "eval_accuracy" in entry)


def _objective(stage: int, model: Classifier, train: Dataset, settings: TrainingSettings) -> Objective:
    weights = None
    if settings.class_weights == "balanced":
        weights = balanced_weights(list(train["labels"]), len(label_names(model)))
    if isinstance(model, PlainClassifier):
        return PlainFineTuning(model, settings, weights)
    return (Stage1 if stage == 1 else Stage2)(model, settings, weights)


def balanced_weights(label_ids: Sequence[int], classes: int) -> tuple[float, ...]:
    """n / (classes x count) for each label, 1 on average over the texts; a label without texts weighs 0.

    [0, 0, 0, 1] with two classes -> (0.667, 2.0).
    """
    counts = np.bincount(label_ids, minlength=classes)
    return tuple(len(label_ids) / (classes * count) if count else 0.0 for count in counts.tolist())


def trains_in_bf16(settings: TrainingSettings) -> bool:
    """Whether training here is in mixed precision: as set, or, with `auto`, on a GPU that has it."""
    if settings.mixed_precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return settings.mixed_precision == "bf16"


def _arguments(stage: int, settings: TrainingSettings, folder: Path) -> TrainingArguments:
    bf16 = trains_in_bf16(settings)
    # TrainingArguments passes the precision on in the environment, and never takes it back.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if bf16 else "no"
    try:
        return TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=settings.stage1_epochs if stage == 1 else settings.stage2_epochs,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=settings.batch_size,
            gradient_accumulation_steps=settings.gradient_accumulation_steps,
            weight_decay=settings.weight_decay,
            adam_epsilon=settings.adam_epsilon,
            warmup_steps=settings.warmup_steps,
            bf16=bf16,
            use_cpu=not torch.accelerator.is_available(),
            seed=settings.seed,
            logging_steps=10,
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=stage == 1,
            metric_for_best_model=BEST_BY,
            label_names=["labels"],
            remove_unused_columns=False,
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
    except ValueError as err:
        raise ConfigError(
            f"the Trainer refuses these settings: {err}", hint="--mixed-precision no works everywhere"
        ) from err
