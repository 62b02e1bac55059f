"""What each training stage minimizes, as modules that a Trainer can wrap (Hu et al., IJCAI 2023, both stages).

Shape letters: b batch, s sequence, h hidden, w width, l layers, c classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from enum import Enum
from typing import Any, cast

import torch
from torch import Tensor, nn

from smartbert.modeling import ContrastHead, ExitHead, SmartBertForSequenceClassification
from smartbert.plain_classifier import PlainClassifier
from smartbert.training.losses import (
    classification_loss,
    cross_layer_contrast,
    distillation_loss,
    gate_penalty,
    hard_weight,
    target_penalty,
)
from smartbert.training.settings import TrainingSettings


class Objective(nn.Module):
    """A stage: in training mode `forward` gives the loss, in evaluation mode what every gate and exit head returns."""

    class_weights_c: Tensor | None

    def __init__(
        self,
        model: SmartBertForSequenceClassification | PlainClassifier,
        settings: TrainingSettings,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        weights_c = None if class_weights is None else torch.tensor(class_weights)
        self.register_buffer("class_weights_c", weights_c, persistent=False)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Ids and mask (b,s), labels (b) -> {"loss"} in training, with "skip_logits", "exit_logits" in evaluation."""
        if self.training:
            return {"loss": self.loss(input_ids, attention_mask, labels, token_type_ids)}
        run = self.model.full_pass(input_ids, attention_mask, token_type_ids)
        loss = nn.functional.cross_entropy(run.logits_blc[:, -1], labels)
        return {"loss": loss, "skip_logits": run.skip_logits_bl, "exit_logits": run.logits_blc}

    def loss(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """The stage's whole loss, a scalar."""
        raise TypeError("a stage defines its loss")

    def _task(self, logits_bc: Tensor, labels: Tensor) -> Tensor:
        return classification_loss(logits_bc, labels, self.class_weights_c)

    def _taught(self, logits_bc: Tensor, labels: Tensor, teacher_bc: Tensor) -> Tensor:
        """An early head's loss: the labels', and for a share of it the last head's answers."""
        share = self.settings.distillation
        loss = self._task(logits_bc, labels)
        if not share:
            return loss
        taught = distillation_loss(logits_bc, teacher_bc, self.settings.distillation_temperature)
        return (1.0 - share) * loss + share * taught

    def _valid(self, attention_mask_bs: Tensor) -> Tensor:
        """Tokens that the contrastive terms count: all but padding, or all of them as the paper's code does."""
        if self.settings.contrast_padding:
            return torch.ones_like(attention_mask_bs, dtype=torch.bool)
        return attention_mask_bs.bool()


class PlainFineTuning(Objective):
    """Cross entropy of a plain classifier: the control arm."""

    model: PlainClassifier

    def loss(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """Cross entropy."""
        return self._task(self.model.logits(input_ids, attention_mask, token_type_ids), labels)


class Phase(Enum):
    """How stage 1 weighs a gate: not at all, by its probability, or by its decision."""

    UNGATED = "ungated"
    SOFT = "soft"
    HARD = "hard"


class Stage1(Objective):
    """Backbone, gates, last exit head, and the other heads where they learn jointly.

    loss = (1 - eta1) (cross_entropy(exit_L(x_L), y) + lambda / G) + eta1 C1, with each layer's output mixed with its
    input by the gate: x_i = (1 - w_i) layer_i(x_{i-1}) + w_i x_{i-1}; w_i is soft at first, then hard.

    Beyond the paper: an ungated phase in which no gate is evaluated, a target for the layers run instead of lambda / G,
    and the other exit heads' losses beside the last one's.
    """

    model: SmartBertForSequenceClassification

    def __init__(
        self,
        model: SmartBertForSequenceClassification,
        settings: TrainingSettings,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(model, settings, class_weights)
        width = model.config.head_width
        contrasts = len(model.exits) if settings.eta1 else 0
        self.contrast = nn.ModuleList(ContrastHead(model.config.hidden_size, width) for _ in range(contrasts))
        for head in list(model.exits)[:-1]:
            head.requires_grad_(settings.joint_exits > 0)  # else theirs is stage 2
        self.phase = Phase.SOFT  # moved on by the training loop

    def loss(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """(1 - eta1) (cross entropy + gate penalty) + eta1 contrast."""
        model, settings = self.model, self.settings
        x_bsh, mask_b11s = model.embed(input_ids, attention_mask, token_type_ids)
        valid_bs = self._valid(attention_mask)
        gated = self.phase is not Phase.UNGATED and len(model.gates) > 0
        gates, contrasts, early_logits, previous_bsw = [], [], [], None
        for index, head in enumerate(model.exits):
            if settings.eta1:
                projected_bsw = self.contrast[index](x_bsh)
                if previous_bsw is not None:
                    contrasts.append(
                        cross_layer_contrast(previous_bsw, projected_bsw, valid_bs, temperature=settings.temperature1)
                    )
                previous_bsw = projected_bsw
            soft_b = torch.sigmoid(model.gates[index](x_bsh, mask_b11s)) if gated else None
            output_bsh = model.run_layer(index, x_bsh, mask_b11s)
            if settings.joint_exits and index < len(model.exits) - 1:
                early_logits.append(head(output_bsh, mask_b11s))
            if soft_b is None:
                x_bsh = output_bsh
                continue
            gates.append(soft_b)
            weight_b = hard_weight(soft_b, settings.skip_threshold) if self.phase is Phase.HARD else soft_b
            weight_b11 = weight_b[:, None, None]
            x_bsh = (1.0 - weight_b11) * output_bsh + weight_b11 * x_bsh
        answer_bc = model.exits[-1](x_bsh, mask_b11s)
        loss = self._task(answer_bc, labels)
        if gates:
            loss = loss + self._penalty(torch.stack(gates, dim=1))
        if early_logits:
            taught = torch.stack([self._taught(logits_bc, labels, answer_bc) for logits_bc in early_logits])
            loss = loss + settings.joint_exits * taught.mean()
        loss = (1.0 - settings.eta1) * loss
        if contrasts:
            loss = loss + settings.eta1 * torch.stack(contrasts).sum()
        return loss

    def _penalty(self, soft_bl: Tensor) -> Tensor:
        if self.settings.target_layers:
            return target_penalty(soft_bl, self.settings.target_layers)
        return gate_penalty(soft_bl, self.settings.gate_lambda)


class Stage2(Objective):
    """Exit heads 1..L-1 on a frozen backbone, on the path that inference takes.

    loss = (1 - eta2) sum_i cross_entropy(exit_i(layer_i(x_{i-1})), y) + eta2 C2 / (L - 2).

    Beyond the paper: for a share of the cross entropy, the last head's answers are what the others learn.
    """

    model: SmartBertForSequenceClassification

    def __init__(
        self,
        model: SmartBertForSequenceClassification,
        settings: TrainingSettings,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(model, settings, class_weights)
        width = model.config.head_width
        contrasts = len(model.exits) - 1 if settings.eta2 else 0
        self.contrast = nn.ModuleList(ContrastHead(width, width) for _ in range(contrasts))
        self.frozen: list[nn.Module] = [model.backbone, *model.gates, model.exits[-1]]
        for module in self.frozen:
            module.requires_grad_(False)

    def train(self, mode: bool = True) -> Any:
        """As nn.Module's, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def loss(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """(1 - eta2) sum of cross entropies + eta2 contrast / (L - 2)."""
        model, settings = self.model, self.settings
        valid_bs = self._valid(attention_mask)
        answers, contrasts, previous_bsw = [], [], None
        # The teacher, the last head, is only run where it teaches.
        layers = len(model.exits) if settings.distillation else len(model.exits) - 1
        with torch.no_grad():
            hidden_bsh, mask_b11s = model.embed(input_ids, attention_mask, token_type_ids)
            steps = list(itertools.islice(model.layer_steps(hidden_bsh, mask_b11s), layers))
        for step, head in zip(steps, list(model.exits)[:-1], strict=False):
            # The layer's own output, not the gated mix: it is what the head reads when the layer runs.
            features_bsw = cast(ExitHead, head).features(step.output_bsh)
            answers.append(cast(ExitHead, head).answer(features_bsw, mask_b11s))
            if settings.eta2:
                projected_bsw = self.contrast[step.index](features_bsw)
                if previous_bsw is not None:
                    contrasts.append(
                        cross_layer_contrast(
                            previous_bsw,
                            projected_bsw,
                            valid_bs,
                            temperature=settings.temperature2,
                            positive_in_denominator=False,
                        )
                    )
                previous_bsw = projected_bsw
        # Without distillation the teacher's logits are never read.
        teacher_bc = model.exits[-1](steps[-1].hidden_bsh, mask_b11s) if settings.distillation else answers[-1]
        loss = torch.stack([self._taught(logits_bc, labels, teacher_bc) for logits_bc in answers]).sum()
        loss = (1.0 - settings.eta2) * loss
        if contrasts:
            loss = loss + settings.eta2 * torch.stack(contrasts).sum() / len(contrasts)
        return loss
