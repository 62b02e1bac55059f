"""Names, signatures and modules of the parts, against the contract and against the whole model."""

from __future__ import annotations

import torch

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.parts.modules import part_module
from smartbert_export.parts.signatures import LAYOUTS, Part, example_inputs, parts, signature

PARTS = [
    ("embeddings", "embeddings", 0),
    *[(f"{role}_{layer:02d}", role, layer) for layer in (1, 2, 3, 4) for role in ("gate", "layer", "exit")],
]
BLOCKS = [
    ("embeddings", "embeddings", 0),
    *[(f"{role}_{layer:02d}", role, layer) for layer in (1, 2, 3, 4) for role in ("gate", "block")],
    ("exit_04", "exit", 4),
]


def facts(part: Part) -> tuple[str, str, int]:
    return part.name, part.role, part.index


def test_running_order(model: SmartBertForSequenceClassification) -> None:
    names = [facts(part) for part in parts(model.config, "separate")]
    assert names == PARTS
    assert [name for name, _, _ in names[:5]] == ["embeddings", "gate_01", "layer_01", "exit_01", "gate_02"]


def test_fused_parts(
    model: SmartBertForSequenceClassification,
) -> None:
    fused = list(parts(model.config, "fused"))
    assert [facts(part) for part in fused] == BLOCKS
    assert list(parts(model.config, "single")) == fused, "the single graph is joined from the same parts"


def test_last_block_has_its_own_kind(model: SmartBertForSequenceClassification) -> None:
    for layout in LAYOUTS:
        others = [part for part in parts(model.config, layout) if part.kind != part.role]
        assert [(part.name, part.kind) for part in others] == (
            [] if layout == "separate" else [("block_04", "gateless block")]
        )


def test_encoder_weights_are_in_one_part(model: SmartBertForSequenceClassification) -> None:
    """Gates and exit heads come in another form, with weights of their own (test_heads)."""
    addresses = [
        parameter.data_ptr()
        for part in parts(model.config, "separate")
        if part.role in ("embeddings", "layer")
        for parameter in part_module(model, part.role, part.index).parameters()
    ]
    assert sorted(addresses) == sorted(parameter.data_ptr() for parameter in model.backbone.parameters())


def test_index_counts_from_one(model: SmartBertForSequenceClassification) -> None:
    for role, own, layer in (("gate", model.gates[0], 1), ("exit", model.exits[3], 4)):
        found = part_module(model, role, layer).state_dict()["project.weight"]
        assert torch.equal(found, own.state_dict()["project.weight"])
    assert part_module(model, "layer", 2).layer is model.backbone.encoder.layer[1]
    assert part_module(model, "block", 2).layer is model.backbone.encoder.layer[1]


def test_signature_sizes(model: SmartBertForSequenceClassification) -> None:
    inputs, outputs = signature(model.config, "exit")
    assert [(spec.name, spec.dtype, spec.dims) for spec in inputs] == [
        ("hidden", "float32", ("batch", "sequence", "32")),
        ("mask", "float32", ("batch", "1", "1", "sequence")),
    ]
    assert [(spec.name, spec.dtype, spec.dims) for spec in outputs] == [("logits", "float32", ("batch", "3"))]


def test_block_signature(
    model: SmartBertForSequenceClassification,
) -> None:
    layer, head, gate = (signature(model.config, kind) for kind in ("layer", "exit", "gate"))
    assert signature(model.config, "block") == (layer[0], (*layer[1], *head[1], *gate[1]))
    assert signature(model.config, "gateless block") == (layer[0], (*layer[1], *head[1]))


def test_example_dimensions_differ(model: SmartBertForSequenceClassification) -> None:
    for role in ("embeddings", "gate", "layer", "exit", "block"):
        inputs, _ = signature(model.config, role)
        examples = example_inputs(model.config, role)
        sizes = {
            dim: tensor.shape[axis]
            for spec, tensor in zip(inputs, examples, strict=True)
            for axis, dim in enumerate(spec.dims)
        }
        assert sizes["batch"] >= 2 and sizes["sequence"] >= 2 and sizes["batch"] != sizes["sequence"]
        assert len({id(tensor) for tensor in examples}) == len(examples), f"{role}: the tracer merges equal tensors"


def test_example_of_fixed_shape(model: SmartBertForSequenceClassification) -> None:
    for role in ("embeddings", "gate", "layer", "exit", "block"):
        inputs, _ = signature(model.config, role)
        for spec, tensor in zip(inputs, example_inputs(model.config, role, (1, 16)), strict=True):
            wanted = {"batch": 1, "sequence": 16}
            assert tensor.shape == tuple(wanted.get(dim) or int(dim) for dim in spec.dims)
