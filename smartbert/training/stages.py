"""One training stage on transformers.Trainer: its optimizer, its soft and hard epochs, its log, its saved epochs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import transformers
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import Sampler
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

from smartbert.evaluation.curves import summarize
from smartbert.evaluation.decisions import Recording
from smartbert.evaluation.recording import token_counts
from smartbert.plain_classifier import PlainClassifier
from smartbert.progress import Progress, Say
from smartbert.trained_model import Classifier, label_names
from smartbert.training.length_grouping import LengthGrouped
from smartbert.training.objectives import Objective, Phase, PlainFineTuning, Stage1, Stage2
from smartbert.training.processes import mean_over_processes
from smartbert.training.saved_epochs import MarkAndRotate, last_complete, remove_incomplete
from smartbert.training.settings import TrainingSettings
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ConfigError, TrainingError


class StageTrainer(Trainer):
    """A Trainer with one learning rate for the backbone and one for everything else."""

    def __init__(self, objective: Objective, *, backbone_rate: float, head_rate: float, **options: Any) -> None:
        self.objective: Objective = objective
        self.backbone_rate, self.head_rate = backbone_rate, head_rate
        super().__init__(model=objective, **options)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """See `make_optimizer`."""
        if self.optimizer is None:
            self.optimizer = make_optimizer(self.objective, self.objective.settings, self.backbone_rate, self.head_rate)
        return self.optimizer

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        """Texts of like length in one step, in one order for all processes; the Trainer's own hook, in 4.57 and 5."""
        train = self.train_dataset if train_dataset is None else train_dataset
        texts = self.args.train_batch_size * self.args.world_size * self.args.gradient_accumulation_steps
        return self._in_order(train, texts, lambda: round(self.state.epoch or 0))

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        """Texts of like length in one batch, always in the same order."""
        return self._in_order(eval_dataset, self.args.eval_batch_size * self.args.world_size, lambda: 0)

    def _in_order(self, split: Dataset, texts: int, epoch: Callable[[], int]) -> Sampler[int]:
        return LengthGrouped(token_counts(split).tolist(), texts, seed=self.args.seed, epoch=epoch)

    def training_step(self, *args: Any, **options: Any) -> Tensor:
        """As the Trainer's, but a loss that is no number stops the run before it reaches the weights."""
        loss = super().training_step(*args, **options)
        # All processes stop or none: one alone would leave the others waiting for it.
        shared = mean_over_processes(loss)
        if not torch.isfinite(shared):
            raise self._no_number(f"the loss of step {self.state.global_step + 1} is {float(shared)}")
        return loss

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """As the Trainer's; weights that are no numbers stop the run here, before their epoch is judged and saved.

        The loss says it only at the next step, and after the last one never.
        """
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.objective.parameters()):
            raise self._no_number(f"after step {self.state.global_step} there are weights that are no numbers")
        return super().evaluate(*args, **options)

    def _no_number(self, what: str) -> TrainingError:
        folder = Path(str(self.args.output_dir))
        saved = last_complete(folder) or last_complete(folder.with_name("stage1"))
        kept = f"the last good epoch is kept in {saved}" if saved else "no epoch was saved yet"
        stage2 = isinstance(self.objective, Stage2)
        rates = "--stage2-learning-rate" if stage2 else "--learning-rate or --head-learning-rate"
        precision = ", or train with --precision fp32" if self.args.bf16 else ""
        return TrainingError(f"{what}; {kept}", hint=f"begin anew with --overwrite and a lower {rates}{precision}")


class Phases(TrainerCallback):
    """Moves stage 1 from plain to soft to hard gate weights; counts steps, so a resumed run moves at the same one."""

    def __init__(self, objective: Stage1, settings: TrainingSettings) -> None:
        self.objective = objective
        self.plain_share = settings.plain_epochs / settings.stage1_epochs
        self.soft_share = settings.soft_epochs / settings.stage1_epochs

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The phase that this step belongs to."""
        if state.global_step < round(self.plain_share * state.max_steps):
            self.objective.phase = Phase.PLAIN
        elif state.global_step < round((self.plain_share + self.soft_share) * state.max_steps):
            self.objective.phase = Phase.SOFT
        else:
            self.objective.phase = Phase.HARD


def make_optimizer(
    objective: Objective, settings: TrainingSettings, backbone_rate: float, head_rate: float
) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters, the backbone at its own rate; biases and LayerNorms are not decayed."""
    backbone = {id(parameter) for parameter in objective.model.backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in objective.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in backbone, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": backbone_rate if of_backbone else head_rate,
                "weight_decay": settings.weight_decay if matrix else 0.0,
            }
            for (of_backbone, matrix), parameters in sorted(groups.items(), key=lambda item: item[0])
        ],
        eps=settings.adam_epsilon,
        fused=True,
    )


def run_stage(
    stage: int,
    model: Classifier,
    splits: Mapping[str, Dataset],
    tokenizer: PreTrainedTokenizerFast,
    settings: TrainingSettings,
    work: Path,
    *,
    bar: bool,
    say: Say,
) -> tuple[dict[str, float], ...]:
    """Train stage 1 or 2 to its end, from its last saved epoch in `work` if there is one; the log of its epochs.

    A plain classifier has stage 1 only. Raises TrainingError when the loss is no number any more.
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
        compute_metrics=_metrics(objective, settings),
        callbacks=[Progress(f"stage {stage}", say, bar=bar), MarkAndRotate()],
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
    """Whether training here is mixed precision: as asked for, or, by itself, on a GPU that has it."""
    if settings.precision == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return settings.precision == "bf16"


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
            metric_for_best_model="choice",
            label_names=["labels"],
            remove_unused_columns=False,
            report_to=[],
            disable_tqdm=True,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
    except ValueError as err:
        raise ConfigError(
            f"the Trainer refuses these settings: {err}", hint="--precision fp32 works everywhere"
        ) from err


def _metrics(objective: Objective, settings: TrainingSettings) -> Callable[[EvalPrediction], dict[str, float]]:
    """At full depth (gates on, exits off): quality and layers run; skip rate and head accuracy layer by layer."""
    policy = Policy(skip_threshold=settings.skip_threshold, no_exit=True)

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        skip_logits_rl, logits_rlc = cast(tuple[Any, Any], prediction.predictions)
        recording = Recording(
            skip_logits_rl=skip_logits_rl, logits_rlc=logits_rlc, label_ids_r=np.asarray(prediction.label_ids)
        )
        summary = summarize(recording, policy, ())
        # An epoch before the gates were trained is no candidate for the best one, unless no other comes.
        ungated = isinstance(objective, Stage1) and objective.phase is Phase.PLAIN and len(objective.model.gates) > 0
        return {
            "accuracy": summary.accuracy,
            "f1": summary.f1,
            "matthews": summary.matthews,
            "choice": float(getattr(summary, settings.metric)) - 2.0 * ungated,
            "layers_run": summary.mean_layers_run,
            **{f"skip_rate_{layer:02d}": rate for layer, rate in enumerate(summary.skip_rate, start=1)},
            **{
                f"exit_accuracy_{layer:02d}": right
                for layer, right in enumerate(summary.exit_accuracy, start=1)
                if right is not None
            },
        }

    return compute
