"""The PyTorch module of each part, which is traced and whose weights go into the graph."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from smartbert.modeling import ExitHead, SkipGate, SmartBertForSequenceClassification
from smartbert_export.parts.reduced_heads import HeadsPart


def part_module(model: SmartBertForSequenceClassification, role: str, index: int) -> nn.Module:
    """The module of one part; its state_dict holds that part's weights and nothing else."""
    if role == "embeddings":
        return EmbeddingsPart(model)
    layer = model.backbone.encoder.layer[index - 1]
    if role == "layer":
        return LayerPart(layer)
    if role == "block":
        head = model.exits[index - 1]
        if not isinstance(head, ExitHead):
            return PlainBlockPart(layer, head if index == model.config.layers else None)
        return BlockPart(layer, head, cast(SkipGate, model.gates[index]) if index < len(model.gates) else None)
    if role == "gate":
        return HeadsPart(None, cast(SkipGate, model.gates[index - 1]))
    head = model.exits[index - 1]
    return HeadsPart(head, None) if isinstance(head, ExitHead) else head


class EmbeddingsPart(nn.Module):
    """Token ids to the first hidden state and the additive mask."""

    def __init__(self, model: SmartBertForSequenceClassification) -> None:
        super().__init__()
        self.embeddings = model.backbone.embeddings
        self._embed = model.embed

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Three times (b,s) -> hidden (b,s,h), mask (b,1,1,s)."""
        return self._embed(input_ids, attention_mask, token_type_ids)


class LayerPart(nn.Module):
    """One encoder layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """(b,s,h), (b,1,1,s) -> hidden_next (b,s,h)."""
        output = self.layer(hidden, mask)
        return cast(Tensor, output[0] if isinstance(output, tuple) else output)


class BlockPart(nn.Module):
    """Layer i, exit head i and, unless it is the last, gate i+1."""

    def __init__(self, layer: nn.Module, exit_head: ExitHead, next_gate: SkipGate | None) -> None:
        super().__init__()
        self.layer, self.heads = layer, HeadsPart(exit_head, next_gate)

    def forward(self, hidden_bsh: Tensor, mask_b11s: Tensor) -> tuple[Tensor, ...]:
        """(b,s,h), (b,1,1,s) -> hidden_next (b,s,h), logits (b,c) and, with a gate, its skip logit (b)."""
        output = self.layer(hidden_bsh, mask_b11s)
        hidden_next_bsh = cast(Tensor, output[0] if isinstance(output, tuple) else output)
        return hidden_next_bsh, *self.heads(hidden_next_bsh, mask_b11s)


class PlainBlockPart(nn.Module):
    """A layer of a plain classifier, with its head behind the last one."""

    def __init__(self, layer: nn.Module, head: nn.Module | None) -> None:
        super().__init__()
        self.layer, self.head = layer, head

    def forward(self, hidden_bsh: Tensor, mask_b11s: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(b,s,h), (b,1,1,s) -> hidden_next (b,s,h) and, with a head, logits (b,c)."""
        output = self.layer(hidden_bsh, mask_b11s)
        hidden_next_bsh = cast(Tensor, output[0] if isinstance(output, tuple) else output)
        return hidden_next_bsh if self.head is None else (hidden_next_bsh, self.head(hidden_next_bsh, mask_b11s))
