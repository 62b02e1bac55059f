"""The loss terms of both training stages as pure functions (Hu et al., IJCAI 2023).

Shape letters: b batch, s sequence, h hidden, w width, l layers, c classes.
"""

from __future__ import annotations

import torch
from torch import Tensor


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
    return strength / (soft_bl.mean(dim=0).sum() + 1e-6)


def cross_layer_contrast(
    this_bsw: Tensor,
    next_bsw: Tensor,
    valid_bs: Tensor,
    *,
    temperature: float,
    positive_in_denominator: bool = True,
) -> Tensor:
    """Contrast one layer's unit vectors with the next layer's: a token against the same token one layer on.

    The positive of token t is token t of `next_bsw`, the negatives are the sequence's other tokens there; the result
    is the mean of -log(e^(positive/temperature) / sum e^(similarity/temperature)) over all valid tokens.
    Stage 1 keeps the positive in the sum, stage 2 leaves it out (and with it every sequence of fewer than two valid
    tokens, whose sum would be empty).

    valid_bs: true for the tokens that count. The paper's code counts padding too; pass all true for that.
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
    return loss_bs.sum() / counted_bs.sum().clamp(min=1)
