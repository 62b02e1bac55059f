"""losses.py against examples small enough to work out by hand; the workings stand in the comments."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from smartbert.training.losses import (
    classification_loss,
    cross_layer_contrast,
    distillation_loss,
    gate_penalty,
    hard_weight,
    target_penalty,
)

# One sequence of two tokens, unit vectors of width 2, temperature 0.5:
#   this . next / 0.5 = [[1.0, 0.6], [0.0, 0.8]] / 0.5 = [[2.0, 1.2], [0.0, 1.6]]     (row: token, column: token one on)
THIS = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
NEXT = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
# Stage 1, positive in the sum:  token 0  log(e^2.0 + e^1.2) - 2.0 = log(1 + e^-0.8)
#                                token 1  log(e^0.0 + e^1.6) - 1.6 = log(1 + e^-1.6)
STAGE1 = (math.log1p(math.exp(-0.8)) + math.log1p(math.exp(-1.6))) / 2  # 0.2775
# Stage 2, without it:           token 0  1.2 - 2.0 = -0.8;   token 1  0.0 - 1.6 = -1.6
STAGE2 = -1.2


def _both(this_bsw: Tensor, next_bsw: Tensor, valid_bs: Tensor) -> tuple[float, float]:
    """The loss of stage 1's form and of stage 2's."""
    forms = (
        cross_layer_contrast(this_bsw, next_bsw, valid_bs, temperature=0.5, positive_in_denominator=positive)
        for positive in (True, False)
    )
    first, second = (form.item() for form in forms)
    return first, second


def test_hard_weight() -> None:
    soft_b = torch.tensor([0.2, 0.5, 0.7], requires_grad=True)
    hard_b = hard_weight(soft_b)
    assert hard_b.tolist() == [0.0, 1.0, 1.0]
    (hard_b * torch.tensor([2.0, 3.0, 5.0])).sum().backward()
    assert soft_b.grad is not None
    assert soft_b.grad.tolist() == [2.0, 3.0, 5.0]  # gradient 1 for all, times what comes from above


def test_hard_weight_threshold() -> None:
    assert hard_weight(torch.tensor([0.2, 0.5, 0.7]), threshold=0.6).tolist() == [0.0, 0.0, 1.0]


def test_gate_penalty() -> None:
    # Batch means 0.3 and 0.7, so G = 1.0 and the penalty 0.05 / 1.000001; each of 2 rows moves its mean by a half:
    # gradient -0.05 / G^2 / 2 = -0.025 everywhere.
    soft_bl = torch.tensor([[0.2, 0.6], [0.4, 0.8]], requires_grad=True)
    penalty = gate_penalty(soft_bl, 0.05)
    assert penalty.item() == pytest.approx(0.05 / 1.000001, rel=1e-6)
    penalty.backward()
    assert soft_bl.grad is not None
    assert soft_bl.grad.flatten().tolist() == pytest.approx([-0.025] * 4, rel=1e-5)


def test_gate_penalty_without_skips() -> None:
    assert gate_penalty(torch.zeros(2, 3), 0.05).item() == pytest.approx(0.05 / 1e-6)


def test_target_penalty() -> None:
    # Run: 4 - 1 = 3 and 4 - 0.5 = 3.5 layers, 3.25 on average; target 2: (1.625 - 1)^2 = 0.390625.
    # Each gate of 2 rows moves the mean by -1/2: gradient 2 x 0.625 / 2 x (-1/2) = -0.3125 everywhere.
    soft_bl = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.0, 0.0, 0.0]], requires_grad=True)
    penalty = target_penalty(soft_bl, 2.0)
    assert penalty.item() == pytest.approx(0.390625)
    penalty.backward()
    assert soft_bl.grad is not None
    assert soft_bl.grad.flatten().tolist() == pytest.approx([-0.3125] * 8)


def test_target_penalty_below_target() -> None:
    for target in (3.25, 3.5, 12.0):
        soft_bl = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.5, 0.0, 0.0, 0.0]], requires_grad=True)
        penalty = target_penalty(soft_bl, target)
        penalty.backward()
        assert soft_bl.grad is not None
        assert penalty.item() == 0.0 and soft_bl.grad.abs().sum().item() == 0.0


def test_target_penalty_of_the_mean() -> None:
    # One text runs all 4 layers, the other none: 2 on average, which is the target.
    assert target_penalty(torch.tensor([[0.0] * 4, [1.0] * 4]), 2.0).item() == 0.0


LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.3, -0.2], [-1.0, 1.5, 1.0], [0.4, 0.1, 3.0]])


@pytest.mark.parametrize("weights", [None, (0.5, 2.0, 4.0), (1.0, 0.0, 3.0)])
def test_classification_loss_matches_torch(
    weights: tuple[float, ...] | None,
) -> None:
    weights_c = None if weights is None else torch.tensor(weights)
    labels_b = torch.tensor([0, 2, 1, 2])
    ours_bc, theirs_bc = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    ours = classification_loss(ours_bc, labels_b, weights_c)
    theirs = nn.functional.cross_entropy(theirs_bc, labels_b, weight=weights_c)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)
    ours.backward()
    theirs.backward()
    assert ours_bc.grad is not None and theirs_bc.grad is not None
    assert torch.allclose(ours_bc.grad, theirs_bc.grad, rtol=1e-5, atol=1e-8)


def test_classification_loss_of_zero_weights() -> None:
    # torch's own mean is 0 / 0 here.
    logits_bc = LOGITS.clone().requires_grad_()
    loss = classification_loss(logits_bc, torch.tensor([1, 1, 1, 1]), torch.tensor([1.0, 0.0, 3.0]))
    loss.backward()
    assert logits_bc.grad is not None
    assert loss.item() == 0.0 and logits_bc.grad.abs().sum().item() == 0.0


def test_distillation_loss() -> None:
    # Teacher (1/2, 1/2), student (1/4, 3/4): KL = (ln 2 + ln 2/3) / 2 = ln(4/3) / 2. A second text that agrees: half.
    student_bc = torch.tensor([[0.0, math.log(3.0)], [1.0, 2.0]])
    teacher_bc = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    expected = math.log(4 / 3) / 2 / 2
    assert distillation_loss(student_bc, teacher_bc, 1.0).item() == pytest.approx(expected, rel=1e-5)
    # Twice the logits at temperature 2 soften to the same answers; the square of the temperature is multiplied in.
    assert distillation_loss(2 * student_bc, 2 * teacher_bc, 2.0).item() == pytest.approx(4 * expected, rel=1e-5)


def test_distillation_loss_direction() -> None:
    # KL(teacher || student), where the reverse would be (ln 1/2) / 4 + 3 (ln 3/2) / 4 = 0.1308, not 0.1438.
    student_bc, teacher_bc = torch.tensor([[0.0, math.log(3.0)]]), torch.zeros(1, 2)
    assert distillation_loss(student_bc, teacher_bc, 1.0).item() == pytest.approx(0.1438, abs=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_distillation_loss_of_equal_outputs(temperature: float) -> None:
    # A constant added to all logits of a text changes no answer.
    assert distillation_loss(LOGITS, LOGITS.clone(), temperature).item() == pytest.approx(0.0, abs=1e-6)
    assert distillation_loss(LOGITS, LOGITS + 3.0, temperature).item() == pytest.approx(0.0, abs=1e-5)


def test_distillation_gradient() -> None:
    student_bc = torch.tensor([[0.0, math.log(3.0)]], requires_grad=True)
    teacher_bc = torch.zeros(1, 2, requires_grad=True)
    distillation_loss(student_bc, teacher_bc, 1.0).backward()
    assert teacher_bc.grad is None
    assert student_bc.grad is not None
    # Student's minus teacher's probabilities: 1/4 - 1/2 and 3/4 - 1/2; a step down raises the first answer.
    assert student_bc.grad[0].tolist() == pytest.approx([-0.25, 0.25], abs=1e-6)


def test_contrast() -> None:
    first, second = _both(THIS, NEXT, torch.ones(1, 2, dtype=torch.bool))
    assert first == pytest.approx(STAGE1, abs=1e-6)
    assert second == pytest.approx(STAGE2, abs=1e-6)


def test_contrast_default_form() -> None:
    loss = cross_layer_contrast(THIS, NEXT, torch.ones(1, 2, dtype=torch.bool), temperature=0.5)
    assert loss.item() == pytest.approx(STAGE1, abs=1e-6)


def test_contrast_temperature() -> None:
    # At 1.0 the same similarities are [[1.0, 0.6], [0.0, 0.8]]: stage 2 gives ((0.6 - 1.0) + (0.0 - 0.8)) / 2 = -0.6.
    loss = cross_layer_contrast(
        THIS, NEXT, torch.ones(1, 2, dtype=torch.bool), temperature=1.0, positive_in_denominator=False
    )
    assert loss.item() == pytest.approx(-0.6, abs=1e-6)


def test_contrast_with_masked_padding() -> None:
    padding = torch.tensor([[[-1.0, 0.0]]])
    this_bsw = torch.cat([THIS, padding], dim=1).requires_grad_()
    next_bsw = torch.cat([NEXT, -padding], dim=1).requires_grad_()
    valid_bs = torch.tensor([[True, True, False]])
    assert _both(this_bsw, next_bsw, valid_bs) == pytest.approx((STAGE1, STAGE2), abs=1e-6)
    cross_layer_contrast(this_bsw, next_bsw, valid_bs, temperature=0.5).backward()
    for tensor in (this_bsw, next_bsw):
        assert tensor.grad is not None
        assert tensor.grad[0, 2].tolist() == [0.0, 0.0]
        assert tensor.grad[0, :2].abs().sum() > 0.1


def test_contrast_with_counted_padding() -> None:
    # A third token, this = next = (1, 0): similarities / 0.5 = [[2.0, 1.2, 2.0], [0.0, 1.6, 0.0], [2.0, 1.2, 2.0]].
    padding = torch.tensor([[[1.0, 0.0]]])
    this_bsw, next_bsw = torch.cat([THIS, padding], dim=1), torch.cat([NEXT, padding], dim=1)
    outer = math.log(2 * math.exp(2.0) + math.exp(1.2)) - 2.0  # tokens 0 and 2
    middle = math.log(2 + math.exp(1.6)) - 1.6
    without = math.log(math.exp(2.0) + math.exp(1.2)) - 2.0  # tokens 0 and 2, positive left out
    middle_without = math.log(2.0) - 1.6
    first, second = _both(this_bsw, next_bsw, torch.ones(1, 3, dtype=torch.bool))
    assert first == pytest.approx((2 * outer + middle) / 3, abs=1e-6)
    assert second == pytest.approx((2 * without + middle_without) / 3, abs=1e-6)


def test_contrast_mean_is_over_tokens() -> None:
    # A second sequence of one valid token: stage 1 counts it with -log(e^p / e^p) = 0, so 2 tokens' losses over 3;
    # stage 2 leaves it out, so its mean stays that of the first sequence.
    this_bsw, next_bsw = THIS.repeat(2, 1, 1), NEXT.repeat(2, 1, 1)
    valid_bs = torch.tensor([[True, True], [True, False]])
    assert _both(this_bsw, next_bsw, valid_bs) == pytest.approx((STAGE1 * 2 / 3, STAGE2), abs=1e-6)


def test_contrast_without_negatives() -> None:
    this_bsw, next_bsw = THIS.repeat(2, 1, 1).requires_grad_(), NEXT.repeat(2, 1, 1).requires_grad_()
    valid_bs = torch.tensor([[True, False], [False, False]])
    loss = cross_layer_contrast(this_bsw, next_bsw, valid_bs, temperature=0.5, positive_in_denominator=False)
    assert loss.item() == 0.0
    loss.backward()
    for tensor in (this_bsw, next_bsw):
        assert tensor.grad is not None
        assert tensor.grad.abs().sum().item() == 0.0  # a NaN would fail here too


def test_contrast_gradients_beside_lone_token() -> None:
    alone = THIS.clone().requires_grad_()
    cross_layer_contrast(
        alone, NEXT, torch.tensor([[True, True]]), temperature=0.5, positive_in_denominator=False
    ).backward()
    this_bsw = THIS.repeat(2, 1, 1).requires_grad_()
    valid_bs = torch.tensor([[True, True], [True, False]])
    cross_layer_contrast(
        this_bsw, NEXT.repeat(2, 1, 1), valid_bs, temperature=0.5, positive_in_denominator=False
    ).backward()
    assert alone.grad is not None and this_bsw.grad is not None
    assert torch.allclose(this_bsw.grad[0], alone.grad[0], atol=1e-7)
    assert this_bsw.grad[1].abs().sum().item() == 0.0
