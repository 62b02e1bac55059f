"""The parts that a model is cut into: names in running order, inputs and outputs, example inputs for tracing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from smartbert.configuration import SmartBertConfig
from smartbert_runtime.package.manifest import FUSED, SEPARATE, SINGLE, TensorSpec
from smartbert_runtime.sessions.fixed_shape import BATCH, SEQUENCE

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
    "block": ((_HIDDEN, _MASK), (_HIDDEN_NEXT, _LOGITS, _SKIP_LOGIT)),
    # Where no gate follows: after the last layer, and in a model without gates.
    "gateless block": ((_HIDDEN, _MASK), (_HIDDEN_NEXT, _LOGITS)),
    # A plain classifier's blocks, except the last.
    "bare block": ((_HIDDEN, _MASK), (_HIDDEN_NEXT,)),
}
LAYOUTS = (SEPARATE, FUSED, SINGLE)


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of the model. kind: parts of one kind have the same graph; it is the role, except for some blocks."""

    name: str
    role: str
    kind: str
    index: int


def parts(config: SmartBertConfig, layout: str) -> Iterator[Part]:
    """The parts of a layout in running order; those of `single` are joined in one graph."""
    yield Part(name="embeddings", role="embeddings", kind="embeddings", index=0)
    for index in range(1, config.layers + 1):
        last = index == config.layers
        roles = ["gate"] if config.gates else []
        if layout == SEPARATE:
            roles += ["layer", *(["exit"] if config.early_exits or last else [])]
        else:
            # The last exit head as a part of its own is for a text that skips the last layer.
            roles += ["block", *(["exit"] if config.gates and last else [])]
        for role in roles:
            kind = _block_kind(config, last) if role == "block" else role
            yield Part(name=f"{role}_{index:02d}", role=role, kind=kind, index=index)


def _block_kind(config: SmartBertConfig, last: bool) -> str:
    if not config.early_exits and not last:
        return "bare block"
    return "block" if config.gates and not last else "gateless block"


def signature(config: SmartBertConfig, kind: str) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of a kind of part, with the model's numbers for HIDDEN and CLASSES."""
    sizes = {"HIDDEN": str(config.hidden_size), "CLASSES": str(config.num_labels)}

    def filled(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=spec.name, dtype=spec.dtype, dims=tuple(sizes.get(dim, dim) for dim in spec.dims))
            for spec in specs
        )

    inputs, outputs = SIGNATURES[kind]
    return filled(inputs), filled(outputs)


def example_inputs(
    config: SmartBertConfig, role: str, fixed_shape: tuple[int, int] | None = None
) -> tuple[Tensor, ...]:
    """Inputs to trace with. Batch and sequence differ and exceed 1, or the tracer would treat them as constants.

    No tensor is used twice, or the tracer would merge the inputs. fixed_shape: batch and sequence that are constants.
    """
    batch, sequence = fixed_shape or (2, 3)
    if role == "embeddings":
        return tuple(torch.full((batch, sequence), value) for value in (0, 1, 0))
    return torch.zeros(batch, sequence, config.hidden_size), torch.zeros(batch, 1, 1, sequence)
