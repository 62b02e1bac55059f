"""int8 linear layers in standard operators: QuantizeLinear and DequantizeLinear around the factors of a product.

onnxruntime fuses them when it loads the graph, to `QGemm` where the tokens lie in a matrix, to `MatMulIntegerToFloat`
elsewhere; accelerators read them as they are. Activations are uint8: inside an `If` only these fuse. No answer depends
on other texts: a scale is fixed, or belongs to one token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import helper, numpy_helper

from smartbert_export.graphs.flat_tokens import flat_name, flatten_tokens
from smartbert_export.quantize.activation_scales import ActivationScale
from smartbert_export.quantize.weights import LARGEST, Weight, add_constant, replace_nodes, scaled, weights
from smartbert_runtime.errors import ExportError

_ZERO_POINT = 128


def quantize_products(graph: onnx.GraphProto, scales: Mapping[str, ActivationScale], largest: int) -> None:
    """Make every product with a weight int8. scales: of the tensors that have a fixed one; others get one a token.

    largest: the largest int8 number of a weight.
    """
    if scales:
        flatten_tokens(graph)
    _Products(graph, {**scales, **{flat_name(name): scale for name, scale in scales.items()}}, largest).quantize()


class _Products:
    def __init__(self, graph: onnx.GraphProto, scales: Mapping[str, ActivationScale], largest: int) -> None:
        self._graph, self._scales, self._largest = graph, scales, largest
        self._weights = weights(graph)
        self._biases = _biases(graph)
        self._nodes: list[onnx.NodeProto] = []
        self._done: set[str] = set()  # inputs and weights: query, key and value share an input

    def quantize(self) -> None:
        """In place."""
        inside: set[str] = set()  # results of sums that are inside a Gemm now
        for node in self._graph.node:
            if node.op_type == "MatMul" and node.input[1] in self._weights:
                weight = self._weights[node.input[1]]
                if node.input[0] in self._scales:
                    inside.add(self._static_product(node, weight))
                else:
                    self._per_token_product(node, weight)
            elif node.output[0] not in inside:
                self._nodes.append(node)
        replace_nodes(self._graph, self._nodes)

    def _static_product(self, node: onnx.NodeProto, weight: Weight) -> str:
        """A Gemm with the bias that is added behind the product, if there is one; the name of its output."""
        x, y = str(node.input[0]), str(node.output[0])
        if x not in self._done:
            self._done.add(x)
            add_constant(self._graph, f"{x}.scale", np.float32(self._scales[x].scale))
            add_constant(self._graph, f"{x}.zero_point", np.uint8(self._scales[x].zero_point))
            self._nodes += _levels(self._divided(x), x, f"{x}.scale", f"{x}.zero_point")
        factors = [f"{x}.dequantized", self._weight(weight, self._scales[x].divisors)]
        if y not in self._biases:
            # On a matrix onnxruntime would make a float Gemm of a MatMul and the sum behind it.
            self._nodes.append(helper.make_node("Gemm" if x.endswith(flat_name("")) else "MatMul", factors, [y]))
            return y
        bias, total = self._biases[y]
        self._nodes.append(helper.make_node("Gemm", [*factors, self._bias(bias, x, weight)], [total]))
        return total

    def _divided(self, x: str) -> str:
        """The tensor with each channel divided by its own number, where there are such numbers."""
        if not self._scales[x].divisors:
            return x
        # A product: its operator is the faster one.
        inverse_i = 1.0 / np.array(self._scales[x].divisors, dtype=np.float32)
        factor = add_constant(self._graph, f"{x}.inverse_divisors", inverse_i)
        self._nodes.append(helper.make_node("Mul", [x, factor], [f"{x}.divided"]))
        return f"{x}.divided"

    def _bias(self, bias: str, x: str, weight: Weight) -> str:
        """The bias in int32, in steps of the product's own scales."""
        scale_o = self._array(f"{weight.name}.scale") * np.float32(self._scales[x].scale)
        numbers_o = np.rint(self._array(bias).astype(np.float64) / scale_o).astype(np.int32)
        names = [f"{bias}.{kind}" for kind in ("int32", "scale", "zero_point")]
        for name, value in zip(names, (numbers_o, scale_o, np.zeros_like(numbers_o)), strict=True):
            add_constant(self._graph, name, value)
        self._nodes.append(helper.make_node("DequantizeLinear", names, [f"{bias}.dequantized"], axis=0))
        return f"{bias}.dequantized"

    def _per_token_product(self, node: onnx.NodeProto, weight: Weight) -> None:
        """Levels of max|x| / 127 of each token: of the token divided by that, they are the whole numbers."""
        x, y = node.input[0], node.output[0]
        if x not in self._done:
            self._done.add(x)
            self._nodes += _per_token_levels(self._graph, x)
        steps = f"{y}.steps"
        self._nodes.append(helper.make_node("MatMul", [f"{x}.dequantized", self._weight(weight)], [steps]))
        self._nodes.append(helper.make_node("Mul", [steps, f"{x}.scale"], [y]))

    def _weight(self, weight: Weight, divisors: tuple[float, ...] = ()) -> str:
        """The weight in int8, a scale for each output channel. divisors: of the channels that it multiplies."""
        if weight.name not in self._done:
            self._done.add(weight.name)
            array_io = weight.array_io
            if divisors:
                if len(divisors) != len(array_io):
                    raise ExportError(
                        f"activations were recorded in {len(divisors)} channels where {weight.name} takes "
                        f"{len(array_io)}",
                        hint="the recorded ranges are another model's: give --scales-file",
                    )
                array_io = array_io * np.array(divisors, dtype=np.float32)[:, None]
            numbers_io, scale_1o = scaled(array_io, over=0, largest=self._largest)
            names = [f"{weight.name}.{kind}" for kind in ("int8", "scale", "zero_point")]
            zeros_o = np.zeros(scale_1o.size, dtype=np.int8)
            for name, value in zip(names, (numbers_io, scale_1o[0], zeros_o), strict=True):
                add_constant(self._graph, name, value)
            self._nodes.append(helper.make_node("DequantizeLinear", names, [f"{weight.name}.dequantized"], axis=1))
        return f"{weight.name}.dequantized"

    def _array(self, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return numpy_helper.to_array(next(tensor for tensor in self._graph.initializer if tensor.name == name))


def _biases(graph: onnx.GraphProto) -> dict[str, tuple[str, str]]:
    """Product of a matrix of tokens -> (the weight of one dimension that is added to it alone, the sum)."""
    vectors = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 1}
    readers = Counter(name for node in graph.node for name in node.input)
    flat = {node.output[0] for node in graph.node if node.op_type == "MatMul" and node.input[0].endswith(flat_name(""))}
    return {
        node.input[0]: (node.input[1], node.output[0])
        for node in graph.node
        if node.op_type == "Add" and node.input[0] in flat and node.input[1] in vectors and readers[node.input[0]] == 1
    }


def _per_token_levels(graph: onnx.GraphProto, x: str) -> list[onnx.NodeProto]:
    level = add_constant(graph, "int8.level", np.float32(1.0 / LARGEST))
    least = add_constant(graph, "int8.least", np.float32(1e-12))
    axis = add_constant(graph, "int8.last_axis", np.array([-1], dtype=np.int64))
    one = add_constant(graph, "int8.one", np.float32(1.0))
    middle = add_constant(graph, "int8.zero_point", np.uint8(_ZERO_POINT))
    return [
        helper.make_node("Abs", [x], [f"{x}.abs"]),
        helper.make_node("ReduceMax", [f"{x}.abs", axis], [f"{x}.max"], keepdims=1),
        helper.make_node("Mul", [f"{x}.max", level], [f"{x}.step"]),
        helper.make_node("Max", [f"{x}.step", least], [f"{x}.scale"]),
        helper.make_node("Div", [x, f"{x}.scale"], [f"{x}.steps"]),
        *_levels(f"{x}.steps", x, one, middle),
    ]


def _levels(values: str, x: str, scale: str, zero_point: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [values, scale, zero_point], [f"{x}.int8"]),
        helper.make_node("DequantizeLinear", [f"{x}.int8", scale, zero_point], [f"{x}.dequantized"]),
    ]
