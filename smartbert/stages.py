"""One training stage on transformers.Trainer: its optimiser, its soft and hard epochs, its log, its saved epochs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset
from torch import nn
from transformers import (
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedTokenizerFast,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from smartbert.evaluation import Recording, summarise
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.objectives import Objective, Stage1, Stage2
from smartbert.progress import Progress, Say
from smartbert.settings import TrainingSettings
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.policy import Policy


class StageTrainer(Trainer):
    """A Trainer with one learning rate for the backbone and one for everything else."""

    def __init__(self, objective: Objective, *, backbone_rate: float, head_rate: float, **options: Any) -> None:
        self.objective: Objective = objective
        self.backbone_rate, self.head_rate = backbone_rate, head_rate
        super().__init__(model=objective, **options)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW over the trainable parameters; biases and LayerNorms are not decayed."""
        if self.optimizer is None:
            groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
            for name, parameter in self.objective.named_parameters():
                if parameter.requires_grad:
                    key = name.startswith("model.backbone."), parameter.ndim > 1
                    groups.setdefault(key, []).append(parameter)
            self.optimizer = torch.optim.AdamW(
                [
                    {
                        "params": parameters,
                        "lr": self.backbone_rate if backbone else self.head_rate,
                        "weight_decay": self.args.weight_decay if matrix else 0.0,
                    }
                    for (backbone, matrix), parameters in sorted(groups.items(), key=lambda item: item[0])
                ],
                eps=self.args.adam_epsilon,
                fused=True,
            )
        return self.optimizer


class SoftThenHard(TrainerCallback):
    """Switches stage 1 from soft to hard gate weights; counts steps, so a resumed run switches at the same one."""

    def __init__(self, objective: Stage1, *, soft_share: float) -> None:
        self.objective, self.soft_share = objective, soft_share

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Hard once the soft epochs' share of all steps is done."""
        self.objective.hard = state.global_step >= round(self.soft_share * state.max_steps)


def run_stage(
    stage: int,
    smart: SmartBertForSequenceClassification,
    splits: Mapping[str, Dataset],
    tokenizer: PreTrainedTokenizerFast,
    settings: TrainingSettings,
    work: Path,
    *,
    bar: bool,
    say: Say,
) -> tuple[dict[str, float], ...]:
    """Train stage 1 or 2 to its end, from its last saved epoch in `work` if there is one; the log of its epochs."""
    # A resumed run may begin here: the stage's contrast heads must not depend on what was drawn before.
    set_seed(settings.seed + stage)
    folder = work / f"stage{stage}"
    weights = None
    if settings.class_weights == "balanced":
        weights = balanced_weights(list(splits["train"]["labels"]), smart.config.num_labels)
    objective = (Stage1 if stage == 1 else Stage2)(smart, settings, weights)
    trainer = StageTrainer(
        objective,
        backbone_rate=settings.learning_rate,
        head_rate=settings.head_learning_rate if stage == 1 else settings.stage2_learning_rate,
        args=_arguments(stage, settings, folder),
        train_dataset=splits["train"],
        eval_dataset=splits["validation"],
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=_metrics(settings.skip_threshold),
        callbacks=[Progress(f"stage {stage}", say, bar=bar)],
    )
    for printer in (transformers.PrinterCallback, transformers.trainer_callback.ProgressCallback):
        trainer.remove_callback(printer)
    if isinstance(objective, Stage1):
        trainer.add_callback(SoftThenHard(objective, soft_share=settings.soft_epochs / settings.stage1_epochs))
    last = get_last_checkpoint(str(folder)) if folder.is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    objective.requires_grad_(True)
    return tuple(entry for entry in trainer.state.log_history if "eval_accuracy" in entry)


def balanced_weights(label_ids: Sequence[int], classes: int) -> tuple[float, ...]:
    """n / (classes x count) for each label, 1 on average over the texts; a label without texts weighs 0.

    [0, 0, 0, 1] with two classes -> (0.667, 2.0).
    """
    counts = np.bincount(label_ids, minlength=classes)
    return tuple(len(label_ids) / (classes * count) if count else 0.0 for count in counts.tolist())


def record_pass(
    smart: SmartBertForSequenceClassification,
    split: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    settings: TrainingSettings,
    work: Path,
) -> Recording:
    """What every gate and exit head says about each text of `split`."""
    trainer = Trainer(
        model=Objective(smart, settings),
        # In fp32 whatever it was trained in: thresholds are chosen with the numbers that the package will compute.
        args=_arguments(2, dataclasses.replace(settings, bf16=False), work / "record"),
        eval_dataset=split,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    trainer.remove_callback(transformers.PrinterCallback)
    output = trainer.predict(split)
    return _as_recording(output.predictions, output.label_ids)


def _arguments(stage: int, settings: TrainingSettings, folder: Path) -> TrainingArguments:
    # transformers 5 renamed the option that puts texts of like length into one batch.
    names = {item.name for item in dataclasses.fields(TrainingArguments)}
    by_length: dict[str, Any] = {"group_by_length": True}
    if "group_by_length" not in names:
        by_length = {"train_sampling_strategy": "group_by_length"}
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
            bf16=settings.bf16,
            seed=settings.seed,
            logging_steps=10,
            eval_strategy="epoch",
            save_strategy="epoch",
            # Stage 1 keeps its best epoch and, for --resume, its last.
            save_total_limit=2 if stage == 1 else 1,
            load_best_model_at_end=stage == 1,
            metric_for_best_model="accuracy",
            label_names=["labels"],
            remove_unused_columns=False,
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
            **by_length,
        )
    except ValueError as err:
        raise ConfigError(
            f"the Trainer refuses these settings: {err}", hint="leave out --bf16 on this machine"
        ) from err


def _metrics(skip_threshold: float) -> Callable[[EvalPrediction], dict[str, float]]:
    """At full depth (gates on, exits off): accuracy and layers run; skip rate and head accuracy layer by layer."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        recording = _as_recording(prediction.predictions, prediction.label_ids)
        summary = summarise(recording, Policy(skip_threshold=skip_threshold), ())
        return {
            "accuracy": summary.accuracy,
            "layers_run": summary.mean_layers_run,
            **{f"skip_rate_{layer:02d}": rate for layer, rate in enumerate(summary.skip_rate, start=1)},
            **{f"exit_accuracy_{layer:02d}": right for layer, right in enumerate(summary.exit_accuracy, start=1)},
        }

    return compute


def _as_recording(predictions: Any, label_ids: Any) -> Recording:
    skip_logits_rl, logits_rlc = predictions
    return Recording(skip_logits_rl=skip_logits_rl, logits_rlc=logits_rlc, label_ids_r=np.asarray(label_ids))
