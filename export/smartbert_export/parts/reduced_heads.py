"""Exit heads and gates with as few matrix products as possible, as parts of their own and at the end of a block.

They equal the modules they are made of, by algebra. A head attends to every token with a single query, so:
- The key projection can be absorbed: with u = W_k^T (W_q t_0 + b_q) / sqrt(size) per attention head, a token's score is
  t . u; the key bias is the same for every token and drops out of the softmax.
- The value projection moves behind the sum (sum_j a_j (W_v t_j + b_v) = W_v (sum_j a_j t_j) + b_v), and can be folded
  into the next linear layer.
- An exit head and a gate that read the same state share one matrix product as projection, and one attention.
- Learned queries need none of this but the last: there is nothing before the softmax to absorb, and nothing behind it.
Products are computed in double precision. Shape letters: b batch, s sequence, h hidden, w head width, a attention
heads, z = w/a, r readers (exit head, gate), v = r*w, n = s*r, o outputs, c classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from smartbert.modeling import MASKED, ExitHead, LearnedQueryPooling, PoolingAttention, SkipGate


class JointAttention(nn.Module):
    """Several readers of one state, each a PoolingAttention and the linear layer behind it, in one attention.

    The readers' tokens are side by side in t (b,s,r*w). Without moving any number, that is a sequence of tokens of
    width w, with those of reader k at k, k+r, k+2r, ...: one attention covers all of them, and the mask hides the other
    readers' tokens from each attention head. `ask` makes the queries, `take` reads the result; both name weights in
    exported graphs.
    """

    others_1a1r: Tensor

    def __init__(self, readers: Sequence[tuple[PoolingAttention, nn.Linear]]) -> None:
        super().__init__()
        first = readers[0][0]
        self.width, self.query_is_mean = first.query.in_features, first.query_is_mean
        self.heads_wide = [attention.heads * self.width for attention, _ in readers]
        reduced = [_reduced(attention, behind) for attention, behind in readers]
        self.ask = nn.ModuleList(ask for ask, _ in reduced)
        self.take = nn.ModuleList(take for _, take in reduced)
        reader_a = torch.tensor([place for place, (attention, _) in enumerate(readers) for _ in range(attention.heads)])
        others_ar = reader_a[:, None] != torch.arange(len(readers))
        # The value with which the mask hides a token: its softmax is exactly 0.
        self.register_buffer("others_1a1r", others_ar.float()[None, :, None, :] * MASKED, persistent=False)

    def forward(self, t_bsv: Tensor, mask_b11s: Tensor) -> list[Tensor]:
        """(b,s,r*w), (b,1,1,s) -> (b,o) of each reader."""
        batch, sequence, readers = t_bsv.shape[0], t_bsv.shape[1], len(self.take)
        mask_b1s = mask_b11s.squeeze(1)
        source_b1v = mask_b1s.softmax(dim=-1) @ t_bsv if self.query_is_mean else t_bsv[:, 0:1]
        sources = _apart(source_b1v.reshape(batch, readers * self.width), [self.width] * readers)
        query_ba = torch.cat([ask(source_bw) for ask, source_bw in zip(self.ask, sources, strict=True)], dim=-1)
        query_baw = query_ba.reshape(batch, -1, self.width)
        t_bnw = t_bsv
        if readers > 1:
            t_bnw = t_bsv.reshape(batch, -1, self.width)
            mask_basr = mask_b11s.reshape(batch, 1, sequence, 1) + self.others_1a1r
            mask_b1s = mask_basr.reshape(batch, query_baw.shape[1], -1)
        mixed_baw = (query_baw @ t_bnw.transpose(1, 2) + mask_b1s).softmax(dim=-1) @ t_bnw
        read = _apart(mixed_baw.reshape(batch, -1), self.heads_wide)
        return [take(read_bv) for take, read_bv in zip(self.take, read, strict=True)]


class JointLearnedQueries(nn.Module):
    """Several readers of one state, each a LearnedQueryPooling and the linear layer behind it, in one attention.

    The readers' tokens are side by side in t (b,s,r*w); a query has zeros where other readers' tokens are.
    """

    def __init__(self, readers: Sequence[tuple[LearnedQueryPooling, nn.Linear]]) -> None:
        super().__init__()
        self.heads = [attention.heads for attention, _ in readers]
        self.width = readers[0][0].queries.in_features
        queries = [attention.queries.weight.detach() for attention, _ in readers]
        self.queries_av = nn.Parameter(torch.block_diag(*queries).contiguous())
        self.take = nn.ModuleList(_linear(linear.weight.detach(), linear.bias.detach()) for _, linear in readers)

    def forward(self, t_bsv: Tensor, mask_b11s: Tensor) -> list[Tensor]:
        """(b,s,r*w), (b,1,1,s) -> (b,o) of each reader."""
        # The queries first: onnxruntime fuses the transposition into the product.
        scores_bas = self.queries_av @ t_bsv.transpose(1, 2) + mask_b11s.squeeze(1)
        pooled_bav = scores_bas.softmax(dim=-1) @ t_bsv
        read, first = [], 0
        for reader, (heads, take) in enumerate(zip(self.heads, self.take, strict=True)):
            own_baw = pooled_bav
            if len(self.heads) > 1:
                columns = slice(reader * self.width, (reader + 1) * self.width)
                own_baw = pooled_bav[:, first : first + heads, columns]
            read.append(take(own_baw.reshape(-1, heads * self.width)))
            first += heads
        return read


class HeadsPart(nn.Module):
    """An exit head, a gate, or both over one state."""

    def __init__(self, exit_head: ExitHead | None, gate: SkipGate | None) -> None:
        super().__init__()
        heads: list[Any] = [head for head in (exit_head, gate) if head is not None]
        self.project = _linear(
            torch.cat([head.project.weight.detach() for head in heads]),
            torch.cat([head.project.bias.detach() for head in heads]),
        )
        behind = [head.decide if isinstance(head, SkipGate) else head.dense for head in heads]
        readers = [(head.attention, linear) for head, linear in zip(heads, behind, strict=True)]
        learned = isinstance(heads[0].attention, LearnedQueryPooling)
        self.read = JointLearnedQueries(readers) if learned else JointAttention(readers)
        self.classify = None if exit_head is None else exit_head.classify

    def forward(self, hidden_bsh: Tensor, mask_b11s: Tensor) -> tuple[Tensor, ...]:
        """(b,s,h), (b,1,1,s) -> with an exit head its logits (b,c), with a gate its skip logit (b), in this order."""
        read = self.read(torch.tanh(self.project(hidden_bsh)), mask_b11s)
        logits = [] if self.classify is None else [self.classify(torch.tanh(read.pop(0)))]
        return *logits, *(skip_logit_b1.reshape(-1) for skip_logit_b1 in read)


class PerHead(nn.Module):
    """A linear map without bias, one for each attention head: (b,a*i) -> (b,a*o)."""

    def __init__(self, weight_aio: Tensor) -> None:
        super().__init__()
        self.weight_aio = nn.Parameter(weight_aio.detach().float().contiguous())

    def forward(self, x_bv: Tensor) -> Tensor:
        """Each attention head's columns by its own matrix."""
        heads, inner, _ = self.weight_aio.shape
        return (x_bv.reshape(-1, heads, 1, inner) @ self.weight_aio).reshape(x_bv.shape[0], -1)


def _reduced(attention: PoolingAttention, behind: nn.Linear) -> tuple[nn.Module, nn.Module]:
    """The modules before and behind a softmax over the tokens that together equal the attention and `behind`.

    On a short text, time depends on the bytes of weights that are read: two factors are multiplied out only where the
    product is not larger than they are.
    """
    heads, width, outputs = attention.heads, attention.query.in_features, behind.out_features
    size = width // heads
    query_azw, query_az = _by_head(attention.query.weight, heads), _by_head(attention.query.bias, heads)
    query_azw, query_az = query_azw / math.sqrt(size), query_az / math.sqrt(size)
    key_azw, value_azw = (_by_head(linear.weight, heads) for linear in (attention.key, attention.value))
    value_az = _by_head(attention.value.bias, heads)
    behind_oaz = behind.weight.detach().double().reshape(outputs, heads, size)
    behind_o = behind.bias.detach().double() + torch.einsum("oaz,az->o", behind_oaz, value_az)
    if heads * width <= 2 * width:
        ask: nn.Module = _linear(
            torch.einsum("azw,azv->awv", key_azw, query_azw).reshape(heads * width, width),
            torch.einsum("azw,az->aw", key_azw, query_az).reshape(heads * width),
        )
    else:
        ask = nn.Sequential(_linear(query_azw.reshape(width, width), query_az.reshape(width)), PerHead(key_azw))
    if heads * outputs <= width + outputs:
        take: nn.Module = _linear(
            torch.einsum("oaz,azw->oaw", behind_oaz, value_azw).reshape(outputs, heads * width), behind_o
        )
    else:
        take = nn.Sequential(PerHead(value_azw.transpose(1, 2)), _linear(behind.weight, behind_o))
    return ask, take


def _apart(x_bv: Tensor, widths: list[int]) -> Sequence[Tensor]:
    """Each reader's columns; a single reader has all of them, without a Split in the graph."""
    return x_bv.split(widths, dim=-1) if len(widths) > 1 else [x_bv]


def _by_head(parameter: Tensor, heads: int) -> Tensor:
    return parameter.detach().double().reshape(heads, -1, *parameter.shape[1:])


def _linear(weight_oi: Tensor, bias_o: Tensor) -> nn.Linear:
    linear = nn.Linear(weight_oi.shape[1], weight_oi.shape[0])
    with torch.no_grad():
        linear.weight.copy_(weight_oi)
        linear.bias.copy_(bias_o)
    return linear
