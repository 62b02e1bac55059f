"""What each training stage minimises, as modules that a Trainer can wrap (Hu et al., IJCAI 2023, both stages).

Shape letters: b batch, s sequence, h hidden, w width, l layers, c classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from smartbert.losses import cross_layer_contrast, gate_penalty, hard_weight
from smartbert.modeling import ContrastHead, ExitHead, SmartBertForSequenceClassification
from smartbert.settings import TrainingSettings
from smartbert_runtime.policy import logit


class Objective(nn.Module):
    """A stage: in training mode `forward` gives the loss, in evaluation mode what every gate and exit head said."""

    class_weights_c: Tensor | None

    def __init__(
        self,
        model: SmartBertForSequenceClassification,
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
        """Cross entropy, each label's errors weighted when class weights are given."""
        return nn.functional.cross_entropy(logits_bc, labels, weight=self.class_weights_c)

    def _valid(self, attention_mask_bs: Tensor) -> Tensor:
        """Tokens that the contrastive terms count: all but padding, or all of them as the paper's code does."""
        if self.settings.contrast_padding:
            return torch.ones_like(attention_mask_bs, dtype=torch.bool)
        return attention_mask_bs.bool()


class Stage1(Objective):
    """Backbone, gates, last exit head.

    loss = (1 - eta1) (cross_entropy(exit_L(x_L), y) + lambda / G) + eta1 C1, with each layer's output mixed with its
    input by the gate: x_i = (1 - w_i) layer_i(x_{i-1}) + w_i x_{i-1}; w_i is soft at first, then hard.
    """

    def __init__(
        self,
        model: SmartBertForSequenceClassification,
        settings: TrainingSettings,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(model, settings, class_weights)
        width = model.config.head_width
        self.contrast = nn.ModuleList(ContrastHead(model.config.hidden_size, width) for _ in model.gates)
        for head in list(model.exits)[:-1]:  # theirs is stage 2
            head.requires_grad_(False)
        self.hard = False  # set by the training loop once the soft epochs are over

    def loss(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, token_type_ids: Tensor | None) -> Tensor:
        """(1 - eta1) (cross entropy + gate penalty) + eta1 contrast."""
        model, settings = self.model, self.settings
        x_bsh, mask_b11s = model.embed(input_ids, attention_mask, token_type_ids)
        valid_bs = self._valid(attention_mask)
        gates, contrasts, previous_bsw = [], [], None
        for index, (gate, contrast) in enumerate(zip(model.gates, self.contrast, strict=True)):
            soft_b = torch.sigmoid(gate(x_bsh, mask_b11s))
            gates.append(soft_b)
            if settings.eta1:
                projected_bsw = contrast(x_bsh)
                if previous_bsw is not None:
                    contrasts.append(
                        cross_layer_contrast(previous_bsw, projected_bsw, valid_bs, temperature=settings.temperature1)
                    )
                previous_bsw = projected_bsw
            weight_b11 = (hard_weight(soft_b, settings.skip_threshold) if self.hard else soft_b)[:, None, None]
            output_bsh = model.run_layer(index, x_bsh, mask_b11s)
            x_bsh = (1.0 - weight_b11) * output_bsh + weight_b11 * x_bsh
        task = self._task(model.exits[-1](x_bsh, mask_b11s), labels)
        penalty = gate_penalty(torch.stack(gates, dim=1), settings.gate_lambda)
        contrast_sum = torch.stack(contrasts).sum() if contrasts else x_bsh.new_zeros(())
        return (1.0 - settings.eta1) * (task + penalty) + settings.eta1 * contrast_sum


class Stage2(Objective):
    """Exit heads 1..L-1 on a frozen backbone, on the path that inference takes.

    loss = (1 - eta2) sum_i cross_entropy(exit_i(layer_i(x_{i-1})), y) + eta2 C2 / (L - 2).
    """

    def __init__(
        self,
        model: SmartBertForSequenceClassification,
        settings: TrainingSettings,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__(model, settings, class_weights)
        width = model.config.head_width
        self.contrast = nn.ModuleList(ContrastHead(width, width) for _ in range(len(model.exits) - 1))
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
        tasks, contrasts, previous_bsw = [], [], None
        with torch.no_grad():
            x_bsh, mask_b11s = model.embed(input_ids, attention_mask, token_type_ids)
        for index, contrast in enumerate(self.contrast):
            with torch.no_grad():
                skips_b = model.gates[index](x_bsh, mask_b11s) >= logit(model.config.skip_threshold)
                # The layer's own output, not the gated mix: it is what the head sees when the layer runs.
                output_bsh = model.run_layer(index, x_bsh, mask_b11s)
                x_bsh = torch.where(skips_b[:, None, None], x_bsh, output_bsh)
            head = cast(ExitHead, model.exits[index])
            features_bsw = head.features(output_bsh)
            tasks.append(self._task(head.answer(features_bsw, mask_b11s), labels))
            if settings.eta2:
                projected_bsw = contrast(features_bsw)
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
        loss = (1.0 - settings.eta2) * torch.stack(tasks).sum()
        if contrasts:
            loss = loss + settings.eta2 * torch.stack(contrasts).sum() / len(contrasts)
        return loss
