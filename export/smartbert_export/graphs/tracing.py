"""Trace PyTorch parts to ONNX: each kind of part once; copies of its graph get the weights of the other layers."""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxscript.optimizer import optimize_ir
from torch import Tensor, nn

from smartbert_export.graphs.simplify import simplify
from smartbert_export.library_output import quiet_logger
from smartbert_runtime.errors import ExportError
from smartbert_runtime.package.manifest import TensorSpec
from smartbert_runtime.sessions.fixed_shape import BATCH, SEQUENCE

# ONNX operator sets that graphs can be exported for; onnxruntime 1.20 supports all of them.
OPSETS = (18, 19, 20, 21)
OPSET = OPSETS[0]
TWIN_ROWS = 1021
_ONNX_TYPES = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}


@dataclass(frozen=True, kw_only=True)
class Template:
    """A traced graph and, for each of its weights, the parameter that it holds and whether it is transposed."""

    graph: onnx.ModelProto
    weights: Mapping[str, tuple[str, bool]]

    def filled(self, module: nn.Module) -> onnx.ModelProto:
        """A copy of the graph with `module`'s weights."""
        state = {name: tensor.detach().numpy() for name, tensor in module.state_dict().items()}
        model = onnx.ModelProto()
        model.CopyFrom(self.graph)
        for initializer in model.graph.initializer:
            if initializer.name in self.weights:
                parameter, transposed = self.weights[initializer.name]
                array = state[parameter].T if transposed else state[parameter]
                # In place: another tensor would hold the token table, most of a small model, once more.
                del initializer.dims[:]
                initializer.dims.extend(array.shape)
                initializer.raw_data = array.tobytes()
        return model


def make_template(
    module: nn.Module,
    example: Sequence[Tensor],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    fixed: Sequence[int] | None = None,
    opset: int = OPSET,
) -> Template:
    """Trace `module` once, to a graph that can be filled with the weights of any module of the same shape.

    The tracer renames, transposes and merges equal weights (two zero biases become one). Instead of the module, a twin
    is traced whose values are all different: nothing merges, and each weight is recognized by its values.
    """
    twin = _distinct_twin(module)
    graph = trace(twin, example, inputs, outputs, fixed=fixed, opset=opset)
    known: dict[bytes, tuple[str, bool]] = {}
    for name, tensor in twin.state_dict().items():
        array = tensor.numpy()
        known[_key(array)] = name, False
        if array.ndim == 2:
            known[_key(array.T)] = name, True
    weights: dict[str, tuple[str, bool]] = {}
    for initializer in graph.graph.initializer:
        found = known.get(_key(numpy_helper.to_array(initializer)))
        if found is not None:
            _rename(graph, initializer.name, found[0])
            weights[found[0]] = found
            initializer.ClearField("raw_data")  # the twin's; a copy of the graph gets its module's own
    lost = sorted(set(twin.state_dict()) - set(weights))
    if lost:
        raise ExportError(
            f"the traced graph does not hold the weights {', '.join(lost)} as they are",
            hint="this version of torch folds them; use the versions in the constraints file",
        )
    return Template(graph=graph, weights=weights)


def trace(
    module: nn.Module,
    example: Sequence[Tensor],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    fixed: Sequence[int] | None = None,
    opset: int = OPSET,
) -> onnx.ModelProto:
    """One ONNX graph with dynamic batch and sequence, and nothing of this machine in it; its interface is checked.

    fixed: the batch and sequence that all dimensions are made for.
    """
    if fixed is not None:
        inputs, outputs = (_with_numbers(specs, fixed) for specs in (inputs, outputs))
    dimensions = {name: torch.export.Dim(name) for name in (BATCH, SEQUENCE)}
    dynamic = tuple(
        {axis: dimensions[dim] for axis, dim in enumerate(spec.dims) if dim in dimensions} for spec in inputs
    )
    with warnings.catch_warnings(), quiet_logger("torch.onnx"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(example),
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
            opset_version=opset,
            optimize=fixed is None,
            verbose=False,
        )
    assert program is not None  # only None when a file to write to is given
    if fixed is not None:
        # With a fixed length, the optimizer would fold rows of a small position table into a constant.
        optimize_ir(program.model, should_fold=lambda node: False if node.op_type == "Gather" else None)
    graph = program.model_proto
    simplify(graph.graph)
    _strip(graph)
    _check_interface(graph, inputs, outputs)
    return graph


def _with_numbers(specs: Sequence[TensorSpec], fixed: Sequence[int]) -> tuple[TensorSpec, ...]:
    numbers = dict(zip((BATCH, SEQUENCE), map(str, fixed), strict=True))
    return tuple(replace(spec, dims=tuple(numbers.get(dim, dim) for dim in spec.dims)) for spec in specs)


def _distinct_twin(module: nn.Module) -> nn.Module:
    """A module of the same kind with all values different. Large tables are cut: no graph depends on their rows."""
    tables = {id(table): table for table in module.modules() if isinstance(table, nn.Embedding)}
    cut = {
        id(table.weight): nn.Parameter(torch.empty(TWIN_ROWS, table.embedding_dim))
        for table in tables.values()
        if table.num_embeddings > TWIN_ROWS
    }
    twin = copy.deepcopy(module, cut)  # the copy has these instead of the weights with those ids
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator))
    return twin


def _key(array: NDArray[np.generic]) -> bytes:
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return repr((array.shape, str(array.dtype))).encode() + hashlib.sha256(content.data).digest()


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    for initializer in model.graph.initializer:
        if initializer.name == old:
            initializer.name = new
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def _strip(model: onnx.ModelProto) -> None:
    """Remove the tracer's notes on source files: two machines must export the same bytes."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    del model.graph.value_info[:]
    model.doc_string = model.graph.doc_string = ""
    for entry in [*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del entry.metadata_props[:]
        entry.doc_string = ""


def _check_interface(model: onnx.ModelProto, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    for specs, found in ((inputs, model.graph.input), (outputs, model.graph.output)):
        for spec, value in zip(specs, found, strict=True):
            tensor = value.type.tensor_type
            dims = tuple(dim.dim_param or str(dim.dim_value) for dim in tensor.shape.dim)
            if (value.name, dims, tensor.elem_type) != (spec.name, spec.dims, _ONNX_TYPES[spec.dtype]):
                raise ExportError(
                    f"traced {value.name} {dims} where {spec.name} {spec.dims} was meant",
                    hint="this version of torch traces differently; use the versions in the constraints file",
                )
