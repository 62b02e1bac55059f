"""PyTorch parts to ONNX graphs: each kind of part is traced once, the other layers' weights go into copies."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from smartbert_runtime.errors import ExportError
from smartbert_runtime.manifest import TensorSpec

OPSET = 18
_ONNX_TYPES = {"float32": onnx.TensorProto.FLOAT, "int64": onnx.TensorProto.INT64}


@dataclass(frozen=True, kw_only=True)
class Template:
    """A traced graph and, for each of its weights: the parameter it holds, and whether transposed."""

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
                initializer.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), initializer.name))
        return model


def make_template(
    module: nn.Module, example: Sequence[Tensor], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Template:
    """Trace `module` once, so that any module of the same shape can lend its weights to the graph.

    The tracer renames, transposes and merges equal weights (two zero biases become one). A twin whose every value is
    different is traced in the module's place: nothing merges, and each weight is recognised by its values.
    """
    twin = _distinct_twin(module)
    graph = trace(twin, example, inputs, outputs)
    known: dict[bytes, tuple[str, bool]] = {}
    for name, tensor in twin.state_dict().items():
        array = tensor.numpy()
        known[_key(array)] = name, False
        if array.ndim == 2:
            known[_key(np.ascontiguousarray(array.T))] = name, True
    weights: dict[str, tuple[str, bool]] = {}
    for initializer in graph.graph.initializer:
        found = known.get(_key(numpy_helper.to_array(initializer)))
        if found is not None:
            _rename(graph, initializer.name, found[0])
            weights[found[0]] = found
    lost = sorted(set(twin.state_dict()) - set(weights))
    if lost:
        raise ExportError(
            f"the traced graph does not hold the weights {', '.join(lost)} as they are",
            hint="this version of torch folds them; use the versions in the constraints file",
        )
    return Template(graph=graph, weights=weights)


def trace(
    module: nn.Module, example: Sequence[Tensor], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> onnx.ModelProto:
    """One ONNX graph with dynamic batch and sequence, free of traces of this machine; its dimensions are checked."""
    dimensions = {name: torch.export.Dim(name) for name in ("batch", "sequence")}
    dynamic = tuple(
        {axis: dimensions[dim] for axis, dim in enumerate(spec.dims) if dim in dimensions} for spec in inputs
    )
    with warnings.catch_warnings(), _quiet("torch.onnx"):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            tuple(example),
            dynamo=True,
            dynamic_shapes=dynamic,
            input_names=[spec.name for spec in inputs],
            output_names=[spec.name for spec in outputs],
            opset_version=OPSET,
            verbose=False,
        )
    assert program is not None  # only None when a file to write to is given
    graph = program.model_proto
    _strip(graph)
    _check_interface(graph, inputs, outputs)
    return graph


def _distinct_twin(module: nn.Module) -> nn.Module:
    twin = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.copy_(torch.rand(parameter.shape, generator=generator))
    return twin


def _key(array: NDArray[np.generic]) -> bytes:
    return repr((array.shape, str(array.dtype))).encode() + array.tobytes()


def _rename(model: onnx.ModelProto, old: str, new: str) -> None:
    for initializer in model.graph.initializer:
        if initializer.name == old:
            initializer.name = new
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if name == old:
                node.input[place] = new


def _strip(model: onnx.ModelProto) -> None:
    """Remove what the tracer notes about source files: two machines must export the same bytes."""
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


class _quiet:
    """The tracer's remarks on optional libraries that are not installed, silenced."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def __enter__(self) -> None:
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *exception: object) -> None:
        self._logger.setLevel(self._level)
