"""Rewrite traced graphs to the patterns that onnxruntime's optimizer fuses, without arithmetic on shapes.

The tracer computes shapes with nodes and writes GELU in an order that onnxruntime does not recognize: a layer then runs
10 more nodes, among them GELU's five and both sums before a LayerNormalization.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

Shape = tuple[int | str, ...]


def simplify(graph: onnx.GraphProto) -> None:
    """Rewrite `graph`, in which every value's shape is annotated, to an equal one with fewer nodes."""
    _constant_shapes(graph)
    _known_gelu(graph)
    drop_unused(graph)


def _constant_shapes(graph: onnx.GraphProto) -> None:
    """Give a Reshape a constant target where its input determines the rest."""
    shapes = _shapes(graph)
    computed = {node.output[0] for node in graph.node}
    for number, node in enumerate(graph.node):
        if node.op_type != "Reshape" or node.input[1] not in computed:
            continue
        before, after = shapes.get(node.input[0]), shapes.get(node.output[0])
        target = None if before is None or after is None else _target(before, after)
        if target is not None:
            name = f"reshape.{number}"
            graph.initializer.append(numpy_helper.from_array(np.array(target, dtype=np.int64), name))
            node.input[1] = name
            del node.attribute[:]  # allowzero: that 0 means no elements


def _target(before: Shape, after: Shape) -> list[int] | None:
    """0 for a dimension that stays in its place, -1 for one that is inferred; None where two would have to be.

    The last named dimension is inferred even if it stays: onnxruntime then cannot prove that both sides of a residual
    sum have the same shape, and does not fuse sum and LayerNormalization. Its SkipLayerNormalization takes
    three times as long on a CPU (1.31, x86).
    """
    named = [place for place, size in enumerate(after) if isinstance(size, str)]
    stays = [place for place in named[:-1] if place < len(before) and before[place] == after[place]]
    if len(stays) < len(named) - 1:
        return None
    return [size if isinstance(size, int) else 0 if place in stays else -1 for place, size in enumerate(after)]


def _shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """The shapes of values of which every dimension is known, as a number or a name."""
    return {
        value.name: tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
        and all(dim.WhichOneof("value") for dim in value.type.tensor_type.shape.dim)
    }


def _known_gelu(graph: onnx.GraphProto) -> None:
    """x (0.5 (1 + erf(x / sqrt 2))), as it is traced, to (x (1 + erf(x / sqrt 2))) 0.5, which onnxruntime fuses."""
    made_by = {output: node for node in graph.node for output in node.output}
    readers = Counter(name for node in graph.node for name in node.input)
    for node in graph.node:
        if node.op_type != "Mul" or (half := made_by.get(node.input[1])) is None or half.op_type != "Mul":
            continue
        one_more = made_by.get(half.input[1])
        if one_more is None or one_more.op_type != "Add" or readers[half.output[0]] > 1:
            continue
        erf = made_by.get(one_more.input[0])
        if erf is not None and erf.op_type == "Erf":
            factor, whole = half.input[0], half.output[0]
            half.input[:] = [node.input[0], one_more.output[0]]
            node.input[:] = [whole, factor]


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that no output depends on."""
    wanted = {value.name for value in graph.output}
    for number in reversed(range(len(graph.node))):
        if wanted.isdisjoint(graph.node[number].output):
            del graph.node[number]
        else:
            wanted.update(graph.node[number].input)
    for number in reversed(range(len(graph.initializer))):
        if graph.initializer[number].name not in wanted:
            del graph.initializer[number]
