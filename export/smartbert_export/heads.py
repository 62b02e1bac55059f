"""A stage: an encoder layer with its exit head and the next layer's gate, deciding in as few products as possible.

Equal to the modules it is made of, by algebra; the head reads every token, and only one query is asked:
- The key projection is absorbed: with u = W_k^T (W_q t_0 + b_q) / sqrt(size) per attention head, a token's score is
  t . u; the key bias is the same for every token and drops out of the softmax.
- The value projection moves behind the sum (sum_j a_j (W_v t_j + b_v) = W_v (sum_j a_j t_j) + b_v) and is folded into
  the linear layer that follows.
- Exit head and gate read the same state: their two projections are one matrix product.
Products are computed in double precision. Shape letters: b batch, s sequence, h hidden, w head width, a attention
heads, z = w/a, o outputs, c classes.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from smartbert.modeling import ExitHead, PoolingAttention, SkipGate


class ReducedAttention(nn.Module):
    """PoolingAttention and the linear layer behind it: two linear layers around a softmax over the tokens."""

    def __init__(self, attention: PoolingAttention, behind: nn.Linear) -> None:
        super().__init__()
        heads, width = attention.heads, attention.query.in_features
        size = width // heads
        self.heads, self.asks_mean = heads, attention.asks_mean
        wanted_azw, wanted_az = _by_head(attention.query.weight, heads), _by_head(attention.query.bias, heads)
        key_azw, value_azw = (_by_head(linear.weight, heads) for linear in (attention.key, attention.value))
        value_az, behind_oaz = (
            _by_head(attention.value.bias, heads),
            behind.weight.detach().double().reshape(behind.out_features, heads, size),
        )
        self.ask = _linear(
            torch.einsum("azw,azv->awv", key_azw, wanted_azw).reshape(heads * width, width) / math.sqrt(size),
            torch.einsum("azw,az->aw", key_azw, wanted_az).reshape(heads * width) / math.sqrt(size),
        )
        self.take = _linear(
            torch.einsum("oaz,azw->oaw", behind_oaz, value_azw).reshape(behind.out_features, heads * width),
            behind.bias.detach().double() + torch.einsum("oaz,az->o", behind_oaz, value_az),
        )

    def forward(self, t_bsw: Tensor, mask_b11s: Tensor) -> Tensor:
        """(b,s,w), (b,1,1,s) -> (b,o)."""
        mask_b1s = mask_b11s.squeeze(1)
        asker_b1w = mask_b1s.softmax(dim=-1) @ t_bsw if self.asks_mean else t_bsw[:, 0:1]
        asked_baw = self.ask(asker_b1w).reshape(t_bsw.shape[0], self.heads, t_bsw.shape[2])
        scores_bas = asked_baw @ t_bsw.transpose(1, 2) + mask_b1s
        mixed_baw = scores_bas.softmax(dim=-1) @ t_bsw
        return cast(Tensor, self.take(mixed_baw.reshape(-1, self.heads * t_bsw.shape[2])))


class StagePart(nn.Module):
    """Layer i, exit head i and, unless it is the last, gate i+1."""

    def __init__(self, layer: nn.Module, exit_head: ExitHead, next_gate: SkipGate | None) -> None:
        super().__init__()
        self.layer = layer
        readers: list[Any] = [exit_head] if next_gate is None else [exit_head, next_gate]
        self.widths = [reader.project.out_features for reader in readers]
        self.project = _linear(
            torch.cat([reader.project.weight.detach() for reader in readers]),
            torch.cat([reader.project.bias.detach() for reader in readers]),
        )
        self.exit = ReducedAttention(exit_head.attention, exit_head.dense)
        self.classify = exit_head.classify
        self.gate = None if next_gate is None else ReducedAttention(next_gate.attention, next_gate.decide)

    def forward(self, hidden_bsh: Tensor, mask_b11s: Tensor) -> tuple[Tensor, ...]:
        """(b,s,h), (b,1,1,s) -> hidden_next (b,s,h), logits (b,c) and, with a gate, its skip logit (b)."""
        output = self.layer(hidden_bsh, mask_b11s)
        hidden_next_bsh = cast(Tensor, output[0] if isinstance(output, tuple) else output)
        t_bsw, *gates = torch.tanh(self.project(hidden_next_bsh)).split(self.widths, dim=-1)
        logits_bc = self.classify(torch.tanh(self.exit(t_bsw, mask_b11s)))
        if self.gate is None:
            return hidden_next_bsh, logits_bc
        return hidden_next_bsh, logits_bc, cast(Tensor, self.gate(gates[0], mask_b11s)).reshape(-1)


class PlainStagePart(nn.Module):
    """A layer of a plain classifier, with its head behind the last one."""

    def __init__(self, layer: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.layer, self.head = layer, head

    def forward(self, hidden_bsh: Tensor, mask_b11s: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(b,s,h), (b,1,1,s) -> hidden_next (b,s,h) and, with a head, logits (b,c)."""
        output = self.layer(hidden_bsh, mask_b11s)
        hidden_next_bsh = cast(Tensor, output[0] if isinstance(output, tuple) else output)
        return hidden_next_bsh if self.head is None else (hidden_next_bsh, self.head(hidden_next_bsh, mask_b11s))


def _by_head(parameter: Tensor, heads: int) -> Tensor:
    return parameter.detach().double().reshape(heads, -1, *parameter.shape[1:])


def _linear(weight_oi: Tensor, bias_o: Tensor) -> nn.Linear:
    linear = nn.Linear(weight_oi.shape[1], weight_oi.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weight_oi)
        linear.bias.copy_(bias_o)
    return linear
