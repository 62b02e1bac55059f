"""The cut: names, signatures and modules of the parts, checked against the contract and against the whole model."""

from __future__ import annotations

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.parts import example_inputs, part_module, part_names, signature

PARTS = [
    ("embeddings", "embeddings", 0),
    *[(f"{role}_{layer:02d}", role, layer) for layer in (1, 2, 3, 4) for role in ("gate", "layer", "exit")],
]


def test_parts_come_in_the_order_in_which_a_text_meets_them(model: SmartBertForSequenceClassification) -> None:
    names = list(part_names(model.config))
    assert names == PARTS
    assert [name for name, _, _ in names[:5]] == ["embeddings", "gate_01", "layer_01", "exit_01", "gate_02"]


def test_every_weight_of_the_model_is_in_exactly_one_part(model: SmartBertForSequenceClassification) -> None:
    addresses = [
        parameter.data_ptr()
        for _, role, index in part_names(model.config)
        for parameter in part_module(model, role, index).parameters()
    ]
    assert sorted(addresses) == sorted(parameter.data_ptr() for parameter in model.parameters())


def test_the_index_counts_layers_from_one(model: SmartBertForSequenceClassification) -> None:
    assert part_module(model, "gate", 1) is model.gates[0]
    assert part_module(model, "exit", 4) is model.exits[3]
    assert part_module(model, "layer", 2).layer is model.backbone.encoder.layer[1]


def test_signatures_name_the_models_own_sizes(model: SmartBertForSequenceClassification) -> None:
    inputs, outputs = signature(model.config, "exit")
    assert [(spec.name, spec.dtype, spec.dims) for spec in inputs] == [
        ("hidden", "float32", ("batch", "sequence", "32")),
        ("mask", "float32", ("batch", "1", "1", "sequence")),
    ]
    assert [(spec.name, spec.dtype, spec.dims) for spec in outputs] == [("logits", "float32", ("batch", "3"))]


def test_no_dimension_of_an_example_can_be_taken_for_a_constant(model: SmartBertForSequenceClassification) -> None:
    for role in ("embeddings", "gate", "layer", "exit"):
        inputs, _ = signature(model.config, role)
        examples = example_inputs(model.config, role)
        sizes = {
            dim: tensor.shape[axis]
            for spec, tensor in zip(inputs, examples, strict=True)
            for axis, dim in enumerate(spec.dims)
        }
        assert sizes["batch"] >= 2 and sizes["sequence"] >= 2 and sizes["batch"] != sizes["sequence"]
        assert len({id(tensor) for tensor in examples}) == len(examples), f"{role}: the tracer merges equal tensors"
