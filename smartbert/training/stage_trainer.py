"""The Trainer of one stage: a learning rate for the backbone and one for the rest, steps of like length, NaN checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import Sampler
from transformers import Trainer

from smartbert.evaluation.recording import token_counts
from smartbert.training.length_grouping import LengthGrouped
from smartbert.training.objectives import Objective, Stage2
from smartbert.training.processes import mean_over_processes
from smartbert.training.saved_epochs import last_complete
from smartbert.training.settings import TrainingSettings
from smartbert_runtime.errors import TrainingError


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
        return self._by_length(train, texts, lambda: round(self.state.epoch or 0))

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        """Texts of like length in one batch, always in the same order."""
        return self._by_length(eval_dataset, self.args.eval_batch_size * self.args.world_size, lambda: 0)

    def _by_length(self, split: Dataset, texts: int, epoch: Callable[[], int]) -> Sampler[int]:
        return LengthGrouped(token_counts(split).tolist(), texts, seed=self.args.seed, epoch=epoch)

    def training_step(self, *args: Any, **options: Any) -> Tensor:
        """As the Trainer's, but a loss that is not a number stops the run before it reaches the weights."""
        loss = super().training_step(*args, **options)
        # All processes stop or none: one that stopped first would leave the others waiting for it.
        shared = mean_over_processes(loss)
        if not torch.isfinite(shared):
            raise self._not_a_number(f"the loss of step {self.state.global_step + 1} is {float(shared)}")
        return loss

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """As the Trainer's; weights that are not numbers stop the run here, before their epoch is evaluated and saved.

        The loss shows them only at the next step, so after the last step never.
        """
        if not all(bool(torch.isfinite(parameter).all()) for parameter in self.objective.parameters()):
            raise self._not_a_number(f"after step {self.state.global_step} some weights are not numbers")
        return super().evaluate(*args, **options)

    def _not_a_number(self, what: str) -> TrainingError:
        folder = Path(str(self.args.output_dir))
        saved = last_complete(folder) or last_complete(folder.with_name("stage1"))
        kept = f"the last good epoch is kept in {saved}" if saved else "no epoch was saved yet"
        stage2 = isinstance(self.objective, Stage2)
        rates = "--stage2-learning-rate" if stage2 else "--learning-rate or --head-learning-rate"
        precision = ", or train with --mixed-precision no" if self.args.bf16 else ""
        return TrainingError(f"{what}; {kept}", hint=f"begin anew with --overwrite and a lower {rates}{precision}")


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
