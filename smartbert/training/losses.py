"""The loss terms of both training stages as pure functions (Hu et al., IJCAI 2023).

Shape letters: b batch, s sequence, h hidden, w width, l layers, c classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smartbert.training.processes import mean_over_processes, share_of_mean


def hard_weight(soft_b: Tensor, threshold: float = 0.5) -> Tensor:
    """Hard weight mechanism: forward 1 where `soft_b` >= threshold and else 0, backward as if it were `soft_b`.

    [0.2, 0.7] -> [0.0, 1.0], with gradient 1 for both.
    """
    hard_b = (soft_b >= threshold).to(soft_b.dtype)
    return soft_b + (hard_b - soft_b).detach()


def gate_penalty(soft_bl: Tensor, strength: float) -> Tensor:
    """lambda / G, G = the sum over layers of each gate's batch mean: the more is skipped, the smaller.

    Two gates at 0.25 and 0.75 and lambda 0.05 -> 0.05 / 1.0 (+ 1e-6 against division by zero).
    """
    return strength / (mean_over_processes(soft_bl.mean(dim=0)).sum() + 1e-6)


def target_penalty(soft_bl: Tensor, target_layers: float) -> Tensor:
    """(run / target - 1)^2 while more layers are expected to run than the target, else 0.

    `run` is the batch mean of the layers' probabilities of being run. Unlike lambda / G it sets how much computation is
    wanted and vanishes there. Four gates at 0.25 run 3 layers; target 2 -> (3 / 2 - 1)^2 = 0.25.
    """
    run = mean_over_processes((1.0 - soft_bl).sum(dim=1).mean())
    return (run / target_layers - 1.0).clamp(min=0.0).square()


def classification_loss(logits_bc: Tensor, labels_b: Tensor, class_weights_c: Tensor | None = None) -> Tensor:
    """Cross entropy, each label's errors weighted when class weights are given."""
    total = nn.functional.cross_entropy(logits_bc, labels_b, weight=class_weights_c, reduction="sum")
    weights_c = logits_bc.new_ones(logits_bc.shape[-1]) if class_weights_c is None else class_weights_c
    return share_of_mean(total, weights_c[labels_b].sum())


def distillation_loss(student_bc: Tensor, teacher_bc: Tensor, temperature: float) -> Tensor:
    """KL divergence of softened outputs, times temperature^2 (Hinton et al., 2015); the teacher gets no gradient."""
    student = nn.functional.log_softmax(student_bc / temperature, dim=-1)
    teacher = nn.functional.log_softmax(teacher_bc.detach() / temperature, dim=-1)
    return nn.functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def cross_layer_contrast(
    this_bsw: Tensor,
    next_bsw: Tensor,
    valid_bs: Tensor,
    *,
    temperature: float,
    positive_in_denominator: bool = True,
) -> Tensor:
    """Contrast one layer's unit vectors with the next layer's: a token against the same token one layer later.

    The positive of token t is token t of `next_bsw`, the negatives are the sequence's other tokens in it; the result
    is the mean of -log(e^(positive/temperature) / sum e^(similarity/temperature)) over all valid tokens.
    Stage 1 keeps the positive in the sum, stage 2 leaves it out (and with it every sequence of fewer than two valid
    tokens, whose sum would be empty).

    valid_bs: true for the tokens that count. The paper's code counts padding, too; pass all true for that.
    """
    similarity_bss = this_bsw @ next_bsw.transpose(1, 2) / temperature
    positive_bs = similarity_bss.diagonal(dim1=1, dim2=2)
    allowed_bss = valid_bs[:, None, :].expand_as(similarity_bss)
    counted_bs = valid_bs
    if not positive_in_denominator:
        diagonal_ss = torch.eye(valid_bs.shape[1], dtype=torch.bool, device=valid_bs.device)
        allowed_bss = allowed_bss & ~diagonal_ss
        counted_bs = valid_bs & (valid_bs.sum(dim=1, keepdim=True) > 1)
    # Finite, so that rows that are not counted give no NaN gradient.
    lowest = torch.finfo(similarity_bss.dtype).min
    denominator_bs = similarity_bss.masked_fill(~allowed_bss, lowest).logsumexp(dim=-1)
    loss_bs = (denominator_bs - positive_bs).masked_fill(~counted_bs, 0.0)
    return share_of_mean(loss_bs.sum(), counted_bs.sum())
