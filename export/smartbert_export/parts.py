"""The parts a model is cut into: their names in running order, what goes in and out, and the module behind each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
from torch import Tensor, nn

from smartbert.configuration import SmartBertConfig
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_runtime.manifest import TensorSpec

BATCH, SEQUENCE = "batch", "sequence"

# role -> (inputs, outputs); a dimension in capitals is filled in from the model's config.
_IDS = tuple(
    TensorSpec(name=name, dtype="int64", dims=(BATCH, SEQUENCE))
    for name in ("input_ids", "attention_mask", "token_type_ids")
)
_HIDDEN = TensorSpec(name="hidden", dtype="float32", dims=(BATCH, SEQUENCE, "HIDDEN"))
_MASK = TensorSpec(name="mask", dtype="float32", dims=(BATCH, "1", "1", SEQUENCE))
_HIDDEN_NEXT = TensorSpec(name="hidden_next", dtype="float32", dims=(BATCH, SEQUENCE, "HIDDEN"))
_SKIP_LOGIT = TensorSpec(name="skip_logit", dtype="float32", dims=(BATCH,))
_LOGITS = TensorSpec(name="logits", dtype="float32", dims=(BATCH, "CLASSES"))

SIGNATURES: dict[str, tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]] = {
    "embeddings": (_IDS, (_HIDDEN, _MASK)),
    "gate": ((_HIDDEN, _MASK), (_SKIP_LOGIT,)),
    "layer": ((_HIDDEN, _MASK), (_HIDDEN_NEXT,)),
    "exit": ((_HIDDEN, _MASK), (_LOGITS,)),
}


def part_names(config: SmartBertConfig) -> Iterator[tuple[str, str, int]]:
    """(name, role, index) of every part, in the order in which a text meets them."""
    yield "embeddings", "embeddings", 0
    for index in range(1, config.layers + 1):
        for role in ("gate", "layer", "exit"):
            yield f"{role}_{index:02d}", role, index


def signature(config: SmartBertConfig, role: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a part, numbers in place of HIDDEN and CLASSES."""
    sizes = {"HIDDEN": str(config.hidden_size), "CLASSES": str(config.num_labels)}

    def filled(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=spec.name, dtype=spec.dtype, dims=tuple(sizes.get(dim, dim) for dim in spec.dims))
            for spec in specs
        )

    inputs, outputs = SIGNATURES[role]
    return filled(inputs), filled(outputs)


def part_module(model: SmartBertForSequenceClassification, role: str, index: int) -> nn.Module:
    """The module of one part; its state_dict holds that part's weights and nothing else."""
    if role == "embeddings":
        return EmbeddingsPart(model)
    if role == "layer":
        return LayerPart(model.backbone.encoder.layer[index - 1])
    return (model.gates if role == "gate" else model.exits)[index - 1]


def example_inputs(config: SmartBertConfig, role: str) -> tuple[Tensor, ...]:
    """Inputs to trace with. Batch and sequence differ and exceed 1, or the tracer would take them for constants.

    No tensor is used twice: the tracer would merge the inputs.
    """
    batch, sequence = 2, 3
    if role == "embeddings":
        return tuple(torch.full((batch, sequence), value) for value in (0, 1, 0))
    return torch.zeros(batch, sequence, config.hidden_size), torch.zeros(batch, 1, 1, sequence)


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
