"""Weights that are int8 in the file and float32 in use: embedding tables, and linear layers of one token a text."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from smartbert_export.quantize.weights import LARGEST, replace_nodes, scaled, weights


def store_tables(graph: onnx.GraphProto) -> None:
    """Gather from an int8 table, and multiply each gathered row by its scale."""
    tables = weights(graph)
    nodes = []
    for node in graph.node:
        if node.op_type != "Gather" or node.input[0] not in tables:
            nodes.append(node)
            continue
        table, ids, output = tables[node.input[0]], node.input[1], node.output[0]
        numbers, scale_n1 = scaled(table.array_io, over=1, largest=LARGEST)
        graph.initializer.append(numpy_helper.from_array(numbers, f"{table.name}.int8"))
        graph.initializer.append(numpy_helper.from_array(scale_n1, f"{table.name}.scale"))
        nodes += [
            helper.make_node("Gather", [f"{table.name}.int8", ids], [f"{output}.int8"], axis=0),
            helper.make_node("Cast", [f"{output}.int8"], [f"{output}.float"], to=onnx.TensorProto.FLOAT),
            helper.make_node("Gather", [f"{table.name}.scale", ids], [f"{output}.scale"], axis=0),
            helper.make_node("Mul", [f"{output}.float", f"{output}.scale"], [output]),
        ]
    replace_nodes(graph, nodes)


def store_gemms(graph: onnx.GraphProto) -> None:
    """Linear layers of 2-D inputs, one token a text: int8 weights that are float again once the graph is loaded.

    onnxruntime folds the two constant operators. On a single token the ten operators of an int8 product cost more than
    they save: with them, a block's heads took a third of its time.
    """
    known = weights(graph)
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in graph.node:
        if node.op_type == "Gemm" and node.input[1] in known:
            weight = known[node.input[1]]
            node.input[1] = f"{weight.name}.float"
            if weight.name not in done:
                done.add(weight.name)
                by_row = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
                numbers, scale = scaled(weight.array_io, over=1 if by_row else 0, largest=LARGEST)
                graph.initializer.append(numpy_helper.from_array(numbers, f"{weight.name}.stored"))
                graph.initializer.append(numpy_helper.from_array(scale, f"{weight.name}.step"))
                whole, step, as_float = (f"{weight.name}.{kind}" for kind in ("whole", "step", "float"))
                nodes.append(helper.make_node("Cast", [f"{weight.name}.stored"], [whole], to=onnx.TensorProto.FLOAT))
                nodes.append(helper.make_node("Mul", [whole, step], [as_float]))
        nodes.append(node)
    replace_nodes(graph, nodes)


def gemm_to_matmul(graph: onnx.GraphProto) -> None:
    """Turn Gemm, as linear layers of 2-D inputs are traced, into MatMul and Add, which are quantized like others."""
    known = weights(graph)
    nodes = []
    for node in graph.node:
        if node.op_type != "Gemm" or node.input[1] not in known:
            nodes.append(node)
            continue
        weight = known[node.input[1]]
        name = f"{weight.name}.T"
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(weight.array_io.T), name))
        product = f"{node.output[0]}.product"
        nodes.append(helper.make_node("MatMul", [node.input[0], name], [product]))
        nodes.append(helper.make_node("Add", [product, node.input[2]], list(node.output)))
    replace_nodes(graph, nodes)
