"""objectives.py beyond the paper: the plain phase, targets, joint exits, distillation, models without gates.

Shape letters: b batch, s sequence, h hidden, w width, c classes.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import PlainClassifier
from smartbert.training.objectives import Phase, PlainFineTuning, Stage1, Stage2
from tests.conftest import LABELS, LAYERS
from tests.smartbert.conftest import Batch, with_config
from tests.smartbert.training.formulas import (
    BARE,
    SETTINGS,
    contrast_of,
    cross_entropy,
    divergence,
    early_heads,
    embed,
    full_depth,
    layer,
    loss_of,
    projected,
    without_gradient,
)


def test_ungated_phase(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    objective = Stage1(fresh_model, SETTINGS).eval()
    objective.phase = Phase.UNGATED
    loss = loss_of(objective, batch)
    projections = []
    with torch.no_grad():
        x_bsh, mask_b11s = embed(fresh_model, batch)
        for index in range(LAYERS):
            projections.append(projected(objective.contrast[index], x_bsh))
            x_bsh = layer(fresh_model, index, x_bsh, mask_b11s)
        valid_bs = batch["attention_mask"].bool()
        c1 = sum(
            contrast_of(this, following, valid_bs, 0.5, positive_in_sum=True)
            for this, following in pairwise(projections)
        )
        task = cross_entropy(full_depth(fresh_model, batch), batch["labels"])
    assert loss.item() == pytest.approx((1.0 - 0.3) * task + 0.3 * c1, rel=1e-5)  # and no lambda / G
    loss.backward()
    assert [name for name, parameter in fresh_model.gates.named_parameters() if parameter.grad is not None] == []
    assert without_gradient(fresh_model.exits[-1]) == []
    assert [name for name in without_gradient(fresh_model.backbone) if "position" not in name] == []


@pytest.mark.parametrize("phase", list(Phase))
def test_gateless_model_in_every_phase(model: SmartBertForSequenceClassification, batch: Batch, phase: Phase) -> None:
    ungated = with_config(model, gates=False)
    objective = Stage1(ungated, replace(BARE, gate_lambda=0.7, target_layers=1.0)).eval()
    objective.phase = phase
    expected = cross_entropy(full_depth(ungated, batch), batch["labels"])
    assert loss_of(objective, batch).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("phase", [Phase.SOFT, Phase.HARD])
def test_target_replaces_lambda(fresh_model: SmartBertForSequenceClassification, batch: Batch, phase: Phase) -> None:
    # eta1 0: the loss is cross entropy and penalty. Without a target and lambda it is the cross entropy alone.
    objectives = [
        Stage1(fresh_model, settings).eval() for settings in (BARE, replace(BARE, gate_lambda=0.7, target_layers=1.5))
    ]
    for objective in objectives:
        objective.phase = phase
    task, both = (loss_of(objective, batch).item() for objective in objectives)
    with torch.no_grad():
        x_bsh, mask_b11s = embed(fresh_model, batch)
        run = 0.0
        for index in range(LAYERS):
            g_b = torch.sigmoid(fresh_model.gates[index](x_bsh, mask_b11s))
            run += (1.0 - g_b).mean().item()  # the probability, also where the decision is hard
            w_b11 = ((g_b >= 0.5).float() if phase is Phase.HARD else g_b)[:, None, None]
            x_bsh = (1.0 - w_b11) * layer(fresh_model, index, x_bsh, mask_b11s) + w_b11 * x_bsh
    assert run > 2.0
    assert both - task == pytest.approx((run / 1.5 - 1.0) ** 2, rel=1e-4)


def test_joint_exits_loss(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    objective = Stage1(fresh_model, replace(BARE, joint_exits=0.25)).eval()
    objective.phase = Phase.UNGATED
    with torch.no_grad():
        early = early_heads(fresh_model, *embed(fresh_model, batch))
        task = cross_entropy(full_depth(fresh_model, batch), batch["labels"])
    mean = sum(cross_entropy(answers_bc, batch["labels"]) for answers_bc in early) / (LAYERS - 1)
    assert loss_of(objective, batch).item() == pytest.approx(task + 0.25 * mean, rel=1e-5)


@pytest.mark.parametrize("phase", list(Phase))
def test_joint_exits_trained_parameters(
    fresh_model: SmartBertForSequenceClassification, batch: Batch, phase: Phase
) -> None:
    objective = Stage1(fresh_model, replace(SETTINGS, joint_exits=0.25)).train()
    objective.phase = phase
    objective(**batch)["loss"].backward()
    assert without_gradient(fresh_model.exits) == []


def test_joint_exits_distillation(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    settings = replace(BARE, joint_exits=0.25, distillation=0.4, distillation_temperature=3.0)
    objective = Stage1(fresh_model, settings).eval()
    objective.phase = Phase.UNGATED
    with torch.no_grad():
        early = early_heads(fresh_model, *embed(fresh_model, batch))
        teacher_bc = full_depth(fresh_model, batch)
    taught = [
        0.6 * cross_entropy(answers_bc, batch["labels"]) + 0.4 * divergence(answers_bc, teacher_bc, 3.0)
        for answers_bc in early
    ]
    expected = cross_entropy(teacher_bc, batch["labels"]) + 0.25 * sum(taught) / (LAYERS - 1)
    assert loss_of(objective, batch).item() == pytest.approx(expected, rel=1e-5)


def test_stage_2_distillation(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    settings = replace(BARE, distillation=0.4, distillation_temperature=3.0)
    objective = Stage2(fresh_model, settings).eval()
    inputs = batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]
    with torch.no_grad():
        run = fresh_model.full_pass(*inputs)
        ungated = fresh_model.full_pass(*inputs, no_skip=True)

    def by_hand(teacher_bc: Tensor) -> float:
        return sum(
            0.6 * cross_entropy(run.logits_blc[:, index], batch["labels"])
            + 0.4 * divergence(run.logits_blc[:, index], teacher_bc, 3.0)
            for index in range(LAYERS - 1)
        )

    expected = by_hand(run.logits_blc[:, -1])
    assert loss_of(objective, batch).item() == pytest.approx(expected, rel=1e-5)
    assert abs(by_hand(ungated.logits_blc[:, -1]) - expected) > 1e-3  # the teacher has skipped what its gates skip


def test_full_distillation(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    objective = Stage2(fresh_model, replace(BARE, distillation=1.0)).train()
    others = {**batch, "labels": (batch["labels"] + 1) % 3}
    assert torch.equal(loss_of(objective, others), loss_of(objective, batch))
    last = {name: tensor.clone() for name, tensor in fresh_model.exits[-1].state_dict().items()}
    optimizer = torch.optim.Adam([p for p in objective.parameters() if p.requires_grad], lr=1e-2)

    def apart() -> list[float]:
        with torch.no_grad():
            run = fresh_model.full_pass(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
        return [divergence(run.logits_blc[:, index], run.logits_blc[:, -1], 1.0) for index in range(LAYERS - 1)]

    before = apart()
    for _ in range(20):
        optimizer.zero_grad()
        loss_of(objective, batch).backward()
        optimizer.step()
    assert all(after < 0.5 * first for after, first in zip(apart(), before, strict=True))
    moved = fresh_model.exits[-1].state_dict()
    assert all(torch.equal(moved[name], tensor) for name, tensor in last.items())  # the teacher stands still


def test_stage_2_gateless_model(model: SmartBertForSequenceClassification, batch: Batch) -> None:
    ungated = with_config(model, gates=False)
    objective = Stage2(ungated, BARE).eval()
    loss = loss_of(objective, batch)
    with torch.no_grad():
        early = early_heads(ungated, *embed(ungated, batch))
    assert loss.item() == pytest.approx(sum(cross_entropy(answer, batch["labels"]) for answer in early), rel=1e-5)
    loss.backward()
    assert without_gradient(ungated.exits[:-1]) == []


@pytest.mark.parametrize("stage", [Stage1, Stage2])
def test_no_contrast_heads_without_contrast(
    fresh_model: SmartBertForSequenceClassification, stage: type[Stage1] | type[Stage2]
) -> None:
    # AdamW would decay weights that no loss ever moves.
    assert not [name for name, _ in stage(fresh_model, BARE).named_parameters() if "contrast" in name]


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 4.0)])
def test_plain_fine_tuning(encoder_dir: Path, batch: Batch, weights: tuple[float, ...] | None) -> None:
    plain = PlainClassifier.from_backbone(
        str(encoder_dir), pooling="mean", max_input_length=24, id2label=dict(enumerate(LABELS))
    )
    objective = PlainFineTuning(plain, BARE, weights).eval()
    loss = loss_of(objective, batch)
    with torch.no_grad():
        logits_bc = plain.logits(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
    weights_c = None if weights is None else torch.tensor(weights)
    expected = nn.functional.cross_entropy(logits_bc, batch["labels"], weight=weights_c)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    unused = [name for name in without_gradient(plain) if "position" not in name]
    assert unused == []
    output = objective(**batch)
    assert torch.isneginf(output["skip_logits"]).all() and output["skip_logits"].shape == (len(logits_bc), LAYERS)
    assert torch.isnan(output["exit_logits"][:, :-1]).all()
    assert torch.equal(output["exit_logits"][:, -1], logits_bc)
