"""int8 and int4 graphs: how weights and activations are scaled, so that no answer depends on the batch.

`quantize_dynamic` scales activations over the whole tensor, so that a text's answer depends on its neighbors. Here
activations have a per-token scale.
- int8: a scale per output channel for weights and per token for activations, multiplied by `MatMulInteger`. Standard
  operators only. Weights that multiply one token per text (most of a head) are int8 in the file only.
- int4: onnxruntime's `MatMulNBits`, a scale for each block of 32 weights: for size, not for speed.
- Embedding tables are int8 with a scale per table row in both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from smartbert_export.graphs.simplify import drop_unused
from smartbert_export.library_output import own_logging, quiet_logger

FP32, INT8, INT4 = "fp32", "int8", "int4"
PRECISIONS = (FP32, INT8, INT4)

# Largest weight by target. Without VNNI, x86 adds two products of 255 and a weight in 16 bits, which must not overflow.
WEIGHT_RANGE = {"x86": 64, "x86-vnni": 127, "arm64": 127}
# The bytes of a smaller weight do not matter, and quantizing its input costs more than it saves.
SMALLEST = 1024
BLOCK = 32
_ACTIVATIONS = 127.0
_ZERO_POINT = 128


def quantized(model: onnx.ModelProto, precision: str, target: str, *, ort_format: bool = False) -> onnx.ModelProto:
    """One part's graph in `precision`; its interface stays float32. `model` itself is changed.

    ort_format: for a file in which onnxruntime has folded constants already, so that nothing is int8 in the file only.
    """
    if precision == FP32:
        return model
    _quantize_tables(model.graph)
    if precision == INT4:
        _gemm_to_matmul(model.graph)
        model = _quantize_blocks(model)
    else:
        (_gemm_to_matmul if ort_format else _store_gemms)(model.graph)
        _quantize_tokens(model.graph, WEIGHT_RANGE[target])
    drop_unused(model.graph)
    return model


@dataclass(frozen=True)
class _Weight:
    """A constant 2-D factor of a matrix product."""

    name: str
    tensor: onnx.TensorProto

    @property
    def array_io(self) -> NDArray[np.float32]:
        """Its values, copied only on access: a token table is most of a small model."""
        return numpy_helper.to_array(self.tensor)


def _weights(graph: onnx.GraphProto) -> dict[str, _Weight]:
    return {
        tensor.name: _Weight(tensor.name, tensor)
        for tensor in graph.initializer
        if len(tensor.dims) == 2
        and tensor.data_type == onnx.TensorProto.FLOAT
        and math.prod(tensor.dims) >= SMALLEST
        and min(tensor.dims) > 1
    }


def _gemm_to_matmul(graph: onnx.GraphProto) -> None:
    """Turn Gemm, as linear layers of 2-D inputs are traced, into MatMul and Add, which are quantized like others."""
    weights = _weights(graph)
    nodes = []
    for node in graph.node:
        if node.op_type != "Gemm" or node.input[1] not in weights:
            nodes.append(node)
            continue
        weight = weights[node.input[1]]
        name = f"{weight.name}.T"
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weight.array_io.T), name))
        product = f"{node.output[0]}.product"
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product]))
        nodes.append(helper.make_node("Add", [product, node.input[2]], list(node.output)))
    _replace_nodes(graph, nodes)


def _quantize_tables(graph: onnx.GraphProto) -> None:
    """Gather from an int8 table, and multiply each gathered row by its scale."""
    tables = _weights(graph)
    nodes = []
    for node in graph.node:
        if node.op_type != "Gather" or node.input[0] not in tables:
            nodes.append(node)
            continue
        table, ids, output = tables[node.input[0]], node.input[1], node.output[0]
        array_nh = table.array_io
        scale_n1 = np.maximum(np.abs(array_nh).max(axis=1, keepdims=True), 1e-12) / _ACTIVATIONS
        whole = np.rint(array_nh / scale_n1).astype(np.int8)
        graph.initializer.append(numpy_helper.from_array(whole, f"{table.name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scale_n1.astype(np.float32), f"{table.name}.scale"))
        nodes += [
            helper.make_node("Gather", [f"{table.name}.int8", ids], [f"{output}.int8"], axis=0),
            helper.make_node("Cast", [f"{output}.int8"], [f"{output}.float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Gather", [f"{table.name}.scale", ids], [f"{output}.scale"], axis=0),
            helper.make_node("Mul", [f"{output}.float", f"{output}.scale"], [output]),
        ]
    _replace_nodes(graph, nodes)


def _store_gemms(graph: onnx.GraphProto) -> None:
    """Linear layers of 2-D inputs, one token per text: int8 weights that are float again once the graph is loaded.

    onnxruntime folds the two constant operators. On a single token the ten operators of an int8 product cost more than
    they save: with them, a block's heads took a third of its time.
    """
    weights = _weights(graph)
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in graph.node:
        if node.op_type == "Gemm" and node.input[1] in weights:
            weight = weights[node.input[1]]
            node.input[1] = f"{weight.name}.float"
            if weight.name in done:
                nodes.append(node)
                continue
            done.add(weight.name)
            by_row = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
            array = weight.array_io
            scale = np.maximum(np.abs(array).max(axis=1 if by_row else 0, keepdims=True), 1e-12) / _ACTIVATIONS
            whole = np.rint(array / scale).astype(np.int8)
            graph.initializer.append(numpy_helper.from_array(whole, f"{weight.name}.stored"))
            graph.initializer.append(numpy_helper.from_array(scale.astype(np.float32), f"{weight.name}.step"))
            nodes.append(
                helper.make_node("Cast", [f"{weight.name}.stored"], [f"{weight.name}.whole"], to=onnx.TensorProto.FLOAT)
            )
            nodes.append(
                helper.make_node("Mul", [f"{weight.name}.whole", f"{weight.name}.step"], [f"{weight.name}.float"])
            )
        nodes.append(node)
    _replace_nodes(graph, nodes)


def _quantize_tokens(graph: onnx.GraphProto, largest: int) -> None:
    """x W -> (round(x / s) MatMulInteger W_int8) s w, with s = max|x| / 127 of each token and w of each column."""
    weights = _weights(graph)
    constants = {
        "int8.level": np.float32(1.0 / _ACTIVATIONS),
        "int8.least": np.float32(1e-12),
        "int8.middle": np.float32(_ZERO_POINT),
        "int8.zero_point": np.uint8(_ZERO_POINT),
        "int8.last_axis": np.array([-1], dtype=np.int64),
    }
    nodes: list[onnx.NodeProto] = []
    tokens: set[str] = set()  # inputs that are quantized already: query, key and value share one
    done: set[str] = set()
    for node in graph.node:
        if node.op_type != "MatMul" or node.input[1] not in weights:
            nodes.append(node)
            continue
        weight, x, y = weights[node.input[1]], node.input[0], node.output[0]
        if x not in tokens:
            tokens.add(x)
            nodes += _token_nodes(x)
        if weight.name not in done:
            done.add(weight.name)
            array_io = weight.array_io
            scale_o = np.maximum(np.abs(array_io).max(axis=0), 1e-12) / largest
            whole = np.rint(array_io / scale_o).astype(np.int8)
            graph.initializer.append(numpy_helper.from_array(whole, f"{weight.name}.int8"))
            graph.initializer.append(numpy_helper.from_array(scale_o.astype(np.float32), f"{weight.name}.scale"))
        nodes += [
            helper.make_node("MatMulInteger", [f"{x}.int8", f"{weight.name}.int8", "int8.zero_point"], [f"{y}.whole"]),
            helper.make_node("Cast", [f"{y}.whole"], [f"{y}.float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Mul", [f"{y}.float", f"{x}.scale"], [f"{y}.rows"]),
            helper.make_node("Mul", [f"{y}.rows", f"{weight.name}.scale"], [y]),
        ]
    if tokens:
        graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    _replace_nodes(graph, nodes)


def _token_nodes(x: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Abs", [x], [f"{x}.abs"]),
        helper.make_node("ReduceMax", [f"{x}.abs", "int8.last_axis"], [f"{x}.max"], keepdims=1),
        helper.make_node("Mul", [f"{x}.max", "int8.level"], [f"{x}.step"]),
        helper.make_node("Max", [f"{x}.step", "int8.least"], [f"{x}.scale"]),
        helper.make_node("Div", [x, f"{x}.scale"], [f"{x}.steps"]),
        helper.make_node("Round", [f"{x}.steps"], [f"{x}.round"]),
        helper.make_node("Add", [f"{x}.round", "int8.middle"], [f"{x}.shifted"]),
        helper.make_node("Cast", [f"{x}.shifted"], [f"{x}.int8"], to=onnx.TensorProto.UINT8),
    ]


def _quantize_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    with own_logging():
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    weights = _weights(model.graph)
    left = [node.name for node in _named(model.graph) if node.op_type == "MatMul" and node.input[1] not in weights]
    # Level 4 multiplies in int8, with a scale for each block of a token's activations.
    config = DefaultWeightOnlyQuantConfig(block_size=BLOCK, is_symmetric=True, accuracy_level=4, bits=4)
    with quiet_logger("onnxruntime.quantization.matmul_nbits_quantizer"):
        quantizer = MatMulNBitsQuantizer(model, nodes_to_exclude=left, algo_config=config)
        quantizer.process()
    done: onnx.ModelProto = quantizer.model.model
    for node in done.graph.node:
        node.name = ""
    return done


def _named(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    for number, node in enumerate(graph.node):
        node.name = f"node_{number}"
    return list(graph.node)


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    kept = [onnx.NodeProto.FromString(node.SerializeToString(deterministic=True)) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
