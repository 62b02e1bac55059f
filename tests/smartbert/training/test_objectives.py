"""objectives.py: both stages' losses recomputed step by step from METHOD's formulas, and who gets gradients.

Shape letters: b batch, s sequence, h hidden, w width, c classes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import cast

import pytest
import torch
from torch import Tensor

from smartbert.configuration import SmartBertConfig
from smartbert.modeling import ExitHead, SmartBertForSequenceClassification
from smartbert.training.objectives import Phase, Stage1, Stage2
from tests.conftest import LAYERS, make_encoder_config
from tests.smartbert.conftest import Batch
from tests.smartbert.training.formulas import (
    BARE,
    SETTINGS,
    contrast_of,
    cross_entropy,
    embed,
    layer,
    loss_of,
    projected,
    without_gradient,
)


@torch.no_grad()
def _stage1_by_hand(objective: Stage1, batch: Batch, valid_bs: Tensor) -> float:
    model = objective.model
    x_bsh, mask_b11s = embed(model, batch)
    gates_sum, projections = 0.0, []
    for index in range(LAYERS):
        projections.append(projected(objective.contrast[index], x_bsh))
        g_b = 1.0 / (1.0 + torch.exp(-model.gates[index](x_bsh, mask_b11s)))
        gates_sum += g_b.mean().item()
        w_b11 = ((g_b >= 0.5).float() if objective.phase is Phase.HARD else g_b)[:, None, None]
        x_bsh = (1.0 - w_b11) * layer(model, index, x_bsh, mask_b11s) + w_b11 * x_bsh
    c1 = sum(
        contrast_of(this_bsw, next_bsw, valid_bs, 0.5, positive_in_sum=True)
        for this_bsw, next_bsw in pairwise(projections)
    )
    task = cross_entropy(model.exits[-1](x_bsh, mask_b11s), batch["labels"])
    return (1.0 - 0.3) * (task + 0.7 / (gates_sum + 1e-6)) + 0.3 * c1


@torch.no_grad()
def _stage2_by_hand(objective: Stage2, batch: Batch, skip_probability: float) -> float:
    model = objective.model
    x_bsh, mask_b11s = embed(model, batch)
    task, projections = 0.0, []
    for index in range(LAYERS - 1):
        skips_b = torch.sigmoid(model.gates[index](x_bsh, mask_b11s)) >= skip_probability
        o_bsh = layer(model, index, x_bsh, mask_b11s)
        task += cross_entropy(model.exits[index](o_bsh, mask_b11s), batch["labels"])
        t_bsw = torch.tanh(cast(ExitHead, model.exits[index]).project(o_bsh))
        projections.append(projected(objective.contrast[index], t_bsw))
        x_bsh = torch.stack([x_bsh[row] if skip else o_bsh[row] for row, skip in enumerate(skips_b.tolist())])
    c2 = sum(
        contrast_of(this_bsw, next_bsw, batch["attention_mask"].bool(), 0.65, positive_in_sum=False)
        for this_bsw, next_bsw in pairwise(projections)
    )
    return (1.0 - 0.4) * task + 0.4 * c2 / (LAYERS - 2)


@pytest.mark.parametrize(("phase", "other"), [(Phase.SOFT, Phase.HARD), (Phase.HARD, Phase.SOFT)])
def test_stage_1_formula(
    fresh_model: SmartBertForSequenceClassification, batch: Batch, phase: Phase, other: Phase
) -> None:
    objective = Stage1(fresh_model, SETTINGS).eval()  # no dropout: both sides see the same numbers
    objective.phase = phase
    expected = _stage1_by_hand(objective, batch, batch["attention_mask"].bool())
    assert loss_of(objective, batch).item() == pytest.approx(expected, rel=1e-5)
    objective.phase = other
    assert abs(loss_of(objective, batch).item() - expected) > 1e-3  # soft and hard are told apart


def test_stage_1_contrast_on_padding(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    objective = Stage1(fresh_model, replace(SETTINGS, contrast_padding=True)).eval()
    expected = _stage1_by_hand(objective, batch, torch.ones_like(batch["attention_mask"], dtype=torch.bool))
    assert loss_of(objective, batch).item() == pytest.approx(expected, rel=1e-5)
    masked = _stage1_by_hand(objective, batch, batch["attention_mask"].bool())
    assert abs(masked - expected) > 1e-2


def test_stage_1_without_contrast(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    objective = Stage1(fresh_model, BARE).eval()
    objective.phase = Phase.HARD  # the inference path then, so the last head's own answer
    expected = cross_entropy(
        fresh_model.full_pass(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]).logits_blc[:, -1],
        batch["labels"],
    )
    assert loss_of(objective, batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("phase", [Phase.SOFT, Phase.HARD])
def test_stage_1_trained_parameters(
    fresh_model: SmartBertForSequenceClassification, batch: Batch, phase: Phase
) -> None:
    objective = Stage1(fresh_model, SETTINGS).train()
    objective.phase = phase
    objective(**batch)["loss"].backward()
    for part in (fresh_model.gates, fresh_model.exits[-1], objective.contrast):
        assert without_gradient(part) == []
    unused = [name for name in without_gradient(fresh_model.backbone) if "position" not in name]
    assert unused == []
    earlier = fresh_model.exits[:-1]
    assert not any(parameter.requires_grad for parameter in earlier.parameters())
    assert [name for name, parameter in earlier.named_parameters() if parameter.grad is not None] == []


@pytest.mark.parametrize("skip_threshold", [0.5, 0.05])
def test_stage_2_formula(fresh_model: SmartBertForSequenceClassification, batch: Batch, skip_threshold: float) -> None:
    fresh_model.config.skip_threshold = skip_threshold
    objective = Stage2(fresh_model, SETTINGS).eval()
    expected = _stage2_by_hand(objective, batch, skip_threshold)
    assert loss_of(objective, batch).item() == pytest.approx(expected, rel=1e-5)
    other = _stage2_by_hand(objective, batch, 0.3)
    assert abs(other - expected) > 1e-4  # the path, and so the loss, depends on the threshold


def test_stage_2_trained_parameters(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    objective = Stage2(fresh_model, SETTINGS).train()
    objective(**batch)["loss"].backward()
    assert without_gradient(fresh_model.exits[:-1]) == []
    assert without_gradient(objective.contrast) == []
    for part in (fresh_model.backbone, fresh_model.gates, fresh_model.exits[-1]):
        assert [name for name, parameter in part.named_parameters() if parameter.grad is not None] == []
        assert not any(parameter.requires_grad for parameter in part.parameters())


def test_stage_2_frozen_modules(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    objective = Stage2(fresh_model, SETTINGS).train()
    for part in (fresh_model.backbone, fresh_model.gates[0], fresh_model.gates[3], fresh_model.exits[-1]):
        assert not any(module.training for module in part.modules())
    assert objective.training and fresh_model.exits[0].training and objective.contrast.training
    # Dropout is therefore off: training mode gives the same loss twice, and that of evaluation mode.
    first, second = objective(**batch)["loss"], objective(**batch)["loss"]
    assert torch.equal(first, second)
    assert torch.equal(first, loss_of(objective.eval(), batch))


def test_stage_1_dropout(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    objective = Stage1(fresh_model, SETTINGS).train()
    assert not torch.equal(objective(**batch)["loss"], objective(**batch)["loss"])


def test_stage_2_of_two_layers(batch: Batch) -> None:
    # L = 2: one early exit, no pair of neighboring exits, L - 2 = 0.
    torch.manual_seed(0)
    encoder = {**make_encoder_config().to_dict(), "num_hidden_layers": 2}
    model = SmartBertForSequenceClassification(SmartBertConfig(backbone_config=encoder, head_width=16, num_labels=3))
    loss = loss_of(Stage2(model, SETTINGS).eval(), batch)
    x_bsh, mask_b11s = embed(model, batch)
    task = cross_entropy(model.exits[0](layer(model, 0, x_bsh, mask_b11s), mask_b11s), batch["labels"])
    assert loss.item() == pytest.approx((1.0 - 0.4) * task, rel=1e-5)


@pytest.mark.parametrize("stage", [Stage1, Stage2])
def test_contrast_heads_are_not_saved(
    fresh_model: SmartBertForSequenceClassification, stage: type[Stage1] | type[Stage2]
) -> None:
    before = list(fresh_model.state_dict())
    objective = stage(fresh_model, SETTINGS)
    assert list(fresh_model.state_dict()) == before
    assert not any("contrast" in name for name in before)
    assert any(name.startswith("contrast.") for name in objective.state_dict())


def test_evaluation_outputs(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    output = Stage1(fresh_model, SETTINGS).eval()(**batch)
    run = fresh_model.full_pass(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
    assert torch.equal(output["skip_logits"], run.skip_logits_bl)
    assert torch.equal(output["exit_logits"], run.logits_blc)
    assert output["loss"].item() == pytest.approx(cross_entropy(run.logits_blc[:, -1], batch["labels"]), rel=1e-5)
    assert list(Stage1(fresh_model, SETTINGS).train()(**batch)) == ["loss"]


def test_class_weights(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    # Without contrast and penalty the loss is the cross entropy alone: a weighted mean, sum(w e) / sum(w).
    weights = (0.5, 2.0, 4.0)
    objective = Stage1(fresh_model, BARE, weights).eval()
    assert objective.phase is Phase.SOFT  # where stage 1 begins
    x_bsh, mask_b11s = embed(fresh_model, batch)
    for index in range(LAYERS):
        gate_b = torch.sigmoid(fresh_model.gates[index](x_bsh, mask_b11s))[:, None, None]
        x_bsh = (1 - gate_b) * layer(fresh_model, index, x_bsh, mask_b11s) + gate_b * x_bsh
    labels = batch["labels"].tolist()
    rows = fresh_model.exits[-1](x_bsh, mask_b11s).softmax(-1)
    errors = [-math.log(row[label].item()) for row, label in zip(rows, labels, strict=True)]
    expected = sum(weights[label] * error for label, error in zip(labels, errors, strict=True))
    expected /= sum(weights[label] for label in labels)
    assert loss_of(objective, batch).item() == pytest.approx(expected, abs=1e-5)
    assert "class_weights_c" not in objective.state_dict()
