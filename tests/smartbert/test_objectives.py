"""objectives.py: both stages' losses recomputed step by step from METHOD's formulas, and who gets gradients.

Shape letters: b batch, s sequence, h hidden, w width, c classes.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import cast

import pytest
import torch
from torch import Tensor, nn

from smartbert.configuration import SmartBertConfig
from smartbert.modeling import ContrastHead, ExitHead, SmartBertForSequenceClassification
from smartbert.objectives import Objective, Stage1, Stage2
from smartbert.settings import TrainingSettings
from tests.conftest import LAYERS, make_encoder_config

Batch = dict[str, Tensor]

# Every share and temperature differs from its default and from the others, so that none can be mixed up unseen.
SETTINGS = TrainingSettings(gate_lambda=0.7, eta1=0.3, eta2=0.4, temperature1=0.5, temperature2=0.65, head_width=16)
MASKED = -10000.0


def _embed(model: SmartBertForSequenceClassification, batch: Batch) -> tuple[Tensor, Tensor]:
    """x_0 and the additive mask."""
    x_bsh = model.backbone.embeddings(input_ids=batch["input_ids"], token_type_ids=batch["token_type_ids"])
    return x_bsh, (1.0 - batch["attention_mask"][:, None, None, :].float()) * MASKED


def _layer(model: SmartBertForSequenceClassification, index: int, x_bsh: Tensor, mask_b11s: Tensor) -> Tensor:
    output = model.backbone.encoder.layer[index](x_bsh, mask_b11s)
    return cast(Tensor, output[0] if isinstance(output, tuple) else output)


def _projected(contrast: nn.Module, x_bsz: Tensor) -> Tensor:
    """A contrast head's layers, then each token's vector divided by its length."""
    x_bsw = cast(ContrastHead, contrast).layers(x_bsz)
    return cast(Tensor, x_bsw / x_bsw.pow(2).sum(-1, keepdim=True).sqrt())


def _cross_entropy(logits_bc: Tensor, labels_b: Tensor) -> float:
    rows = [-math.log(row.softmax(-1)[label].item()) for row, label in zip(logits_bc, labels_b.tolist(), strict=True)]
    return sum(rows) / len(rows)


def _contrast(
    this_bsw: Tensor, next_bsw: Tensor, valid_bs: Tensor, temperature: float, *, positive_in_sum: bool
) -> float:
    """The mean over tokens of -log(e^positive / sum e^similarity), one token at a time."""
    terms: list[float] = []
    for q_sw, r_sw, valid_s in zip(this_bsw.double(), next_bsw.double(), valid_bs.tolist(), strict=True):
        tokens = [token for token, valid in enumerate(valid_s) if valid]
        for t in tokens:
            others = [u for u in tokens if positive_in_sum or u != t]
            if others:
                total = sum(math.exp((q_sw[t] @ r_sw[u]).item() / temperature) for u in others)
                terms.append(math.log(total) - (q_sw[t] @ r_sw[t]).item() / temperature)
    return sum(terms) / len(terms)


@torch.no_grad()
def _stage1_by_hand(objective: Stage1, batch: Batch, valid_bs: Tensor) -> float:
    model = objective.model
    x_bsh, mask_b11s = _embed(model, batch)
    gates_sum, projections = 0.0, []
    for index in range(LAYERS):
        projections.append(_projected(objective.contrast[index], x_bsh))
        g_b = 1.0 / (1.0 + torch.exp(-model.gates[index](x_bsh, mask_b11s)))
        gates_sum += g_b.mean().item()
        w_b11 = ((g_b >= 0.5).float() if objective.hard else g_b)[:, None, None]
        x_bsh = (1.0 - w_b11) * _layer(model, index, x_bsh, mask_b11s) + w_b11 * x_bsh
    c1 = sum(
        _contrast(this_bsw, next_bsw, valid_bs, 0.5, positive_in_sum=True)
        for this_bsw, next_bsw in pairwise(projections)
    )
    task = _cross_entropy(model.exits[-1](x_bsh, mask_b11s), batch["labels"])
    return (1.0 - 0.3) * (task + 0.7 / (gates_sum + 1e-6)) + 0.3 * c1


@torch.no_grad()
def _stage2_by_hand(objective: Stage2, batch: Batch, skip_probability: float) -> float:
    model = objective.model
    x_bsh, mask_b11s = _embed(model, batch)
    task, projections = 0.0, []
    for index in range(LAYERS - 1):
        skips_b = torch.sigmoid(model.gates[index](x_bsh, mask_b11s)) >= skip_probability
        o_bsh = _layer(model, index, x_bsh, mask_b11s)
        task += _cross_entropy(model.exits[index](o_bsh, mask_b11s), batch["labels"])
        t_bsw = torch.tanh(cast(ExitHead, model.exits[index]).project(o_bsh))
        projections.append(_projected(objective.contrast[index], t_bsw))
        x_bsh = torch.stack([x_bsh[row] if skip else o_bsh[row] for row, skip in enumerate(skips_b.tolist())])
    c2 = sum(
        _contrast(this_bsw, next_bsw, batch["attention_mask"].bool(), 0.65, positive_in_sum=False)
        for this_bsw, next_bsw in pairwise(projections)
    )
    return (1.0 - 0.4) * task + 0.4 * c2 / (LAYERS - 2)


def _loss(objective: Objective, batch: Batch) -> Tensor:
    return objective.loss(batch["input_ids"], batch["attention_mask"], batch["labels"], batch["token_type_ids"])


def _without_gradient(module: nn.Module) -> list[str]:
    """Parameters that the loss does not move; key biases shift all scores alike, so a softmax never sees them."""
    return [
        name
        for name, parameter in module.named_parameters()
        if "key.bias" not in name and (parameter.grad is None or not parameter.grad.abs().max() > 0.0)
    ]


@pytest.mark.parametrize("hard", [False, True])
def test_stage_1_loss_is_the_methods_formula(
    fresh_model: SmartBertForSequenceClassification, batch: Batch, hard: bool
) -> None:
    objective = Stage1(fresh_model, SETTINGS).eval()  # no dropout: both sides see the same numbers
    objective.hard = hard
    expected = _stage1_by_hand(objective, batch, batch["attention_mask"].bool())
    assert _loss(objective, batch).item() == pytest.approx(expected, rel=1e-5)
    objective.hard = not hard
    assert abs(_loss(objective, batch).item() - expected) > 1e-3  # soft and hard are told apart


def test_stage_1_counts_padding_when_asked_to(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    counting = TrainingSettings(gate_lambda=0.7, eta1=0.3, temperature1=0.5, head_width=16, contrast_padding=True)
    objective = Stage1(fresh_model, counting).eval()
    expected = _stage1_by_hand(objective, batch, torch.ones_like(batch["attention_mask"], dtype=torch.bool))
    assert _loss(objective, batch).item() == pytest.approx(expected, rel=1e-5)
    masked = _stage1_by_hand(objective, batch, batch["attention_mask"].bool())
    assert abs(masked - expected) > 1e-2


def test_stage_1_without_contrast_is_cross_entropy_and_penalty(
    fresh_model: SmartBertForSequenceClassification, batch: Batch
) -> None:
    objective = Stage1(fresh_model, TrainingSettings(eta1=0.0, gate_lambda=0.0, head_width=16)).eval()
    objective.hard = True  # the inference path then, so the last head's own answer
    expected = _cross_entropy(
        fresh_model.full_pass(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]).logits_blc[:, -1],
        batch["labels"],
    )
    assert _loss(objective, batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("hard", [False, True])
def test_stage_1_moves_backbone_gates_last_head_and_contrast_heads_only(
    fresh_model: SmartBertForSequenceClassification, batch: Batch, hard: bool
) -> None:
    objective = Stage1(fresh_model, SETTINGS).train()
    objective.hard = hard
    objective(**batch)["loss"].backward()
    for part in (fresh_model.gates, fresh_model.exits[-1], objective.contrast):
        assert _without_gradient(part) == []
    unused = [name for name in _without_gradient(fresh_model.backbone) if "position" not in name]
    assert unused == []
    earlier = fresh_model.exits[:-1]
    assert [name for name, parameter in earlier.named_parameters() if parameter.grad is not None] == []


@pytest.mark.parametrize("skip_threshold", [0.5, 0.05])
def test_stage_2_loss_is_the_methods_formula(
    fresh_model: SmartBertForSequenceClassification, batch: Batch, skip_threshold: float
) -> None:
    fresh_model.config.skip_threshold = skip_threshold
    objective = Stage2(fresh_model, SETTINGS).eval()
    expected = _stage2_by_hand(objective, batch, skip_threshold)
    assert _loss(objective, batch).item() == pytest.approx(expected, rel=1e-5)
    other = _stage2_by_hand(objective, batch, 0.3)
    assert abs(other - expected) > 1e-4  # the path, and so the loss, depends on the threshold


def test_stage_2_moves_early_exit_heads_and_contrast_heads_only(
    fresh_model: SmartBertForSequenceClassification, batch: Batch
) -> None:
    objective = Stage2(fresh_model, SETTINGS).train()
    objective(**batch)["loss"].backward()
    assert _without_gradient(fresh_model.exits[:-1]) == []
    assert _without_gradient(objective.contrast) == []
    for part in (fresh_model.backbone, fresh_model.gates, fresh_model.exits[-1]):
        assert [name for name, parameter in part.named_parameters() if parameter.grad is not None] == []
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_stage_2_keeps_what_is_frozen_in_evaluation_mode(
    fresh_model: SmartBertForSequenceClassification, batch: Batch
) -> None:
    objective = Stage2(fresh_model, SETTINGS).train()
    for part in (fresh_model.backbone, fresh_model.gates[0], fresh_model.gates[3], fresh_model.exits[-1]):
        assert not any(module.training for module in part.modules())
    assert objective.training and fresh_model.exits[0].training and objective.contrast.training
    # Dropout is therefore off: training mode gives the same loss twice, and that of evaluation mode.
    first, second = objective(**batch)["loss"], objective(**batch)["loss"]
    assert torch.equal(first, second)
    assert torch.equal(first, _loss(objective.eval(), batch))


def test_stage_1_trains_with_dropout(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    objective = Stage1(fresh_model, SETTINGS).train()
    assert not torch.equal(objective(**batch)["loss"], objective(**batch)["loss"])


def test_stage_2_of_a_two_layer_encoder_has_no_contrast_to_divide_by(batch: Batch) -> None:
    # L = 2: one early exit, no pair of neighbouring exits, L - 2 = 0.
    torch.manual_seed(0)
    encoder = {**make_encoder_config().to_dict(), "num_hidden_layers": 2}
    model = SmartBertForSequenceClassification(SmartBertConfig(backbone_config=encoder, head_width=16, num_labels=3))
    loss = _loss(Stage2(model, SETTINGS).eval(), batch)
    x_bsh, mask_b11s = _embed(model, batch)
    task = _cross_entropy(model.exits[0](_layer(model, 0, x_bsh, mask_b11s), mask_b11s), batch["labels"])
    assert loss.item() == pytest.approx((1.0 - 0.4) * task, rel=1e-5)


@pytest.mark.parametrize("stage", [Stage1, Stage2])
def test_contrast_heads_never_reach_the_checkpoint(
    fresh_model: SmartBertForSequenceClassification, stage: type[Stage1] | type[Stage2]
) -> None:
    before = list(fresh_model.state_dict())
    objective = stage(fresh_model, SETTINGS)
    assert list(fresh_model.state_dict()) == before
    assert not any("contrast" in name for name in before)
    assert any(name.startswith("contrast.") for name in objective.state_dict())


def test_evaluation_gives_what_every_gate_and_head_said(
    fresh_model: SmartBertForSequenceClassification, batch: Batch
) -> None:
    output = Stage1(fresh_model, SETTINGS).eval()(**batch)
    run = fresh_model.full_pass(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
    assert torch.equal(output["skip_logits"], run.skip_logits_bl)
    assert torch.equal(output["exit_logits"], run.logits_blc)
    assert output["loss"].item() == pytest.approx(_cross_entropy(run.logits_blc[:, -1], batch["labels"]), rel=1e-5)
    assert list(Stage1(fresh_model, SETTINGS).train()(**batch)) == ["loss"]


def test_class_weights_weigh_each_labels_errors(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    # Without contrast and penalty the loss is the cross entropy alone: a weighted mean, sum(w e) / sum(w).
    settings = TrainingSettings(eta1=0.0, gate_lambda=0.0, head_width=16)
    weights = (0.5, 2.0, 4.0)
    objective = Stage1(fresh_model, settings, weights).eval()
    x_bsh, mask_b11s = _embed(fresh_model, batch)
    for index in range(LAYERS):
        gate_b = torch.sigmoid(fresh_model.gates[index](x_bsh, mask_b11s))[:, None, None]
        x_bsh = (1 - gate_b) * _layer(fresh_model, index, x_bsh, mask_b11s) + gate_b * x_bsh
    labels = batch["labels"].tolist()
    rows = fresh_model.exits[-1](x_bsh, mask_b11s).softmax(-1)
    errors = [-math.log(row[label].item()) for row, label in zip(rows, labels, strict=True)]
    expected = sum(weights[label] * error for label, error in zip(labels, errors, strict=True))
    expected /= sum(weights[label] for label in labels)
    assert _loss(objective, batch).item() == pytest.approx(expected, abs=1e-5)
    assert "class_weights_c" not in objective.state_dict()
