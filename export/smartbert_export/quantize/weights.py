"""Weights of a graph that are worth quantizing, int8 with a scale for each output channel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

# The bytes of a smaller weight do not matter, and quantizing its input costs more than it saves.
SMALLEST = 1024
# Largest int8 number of weights that are read as int8 and multiplied as floats.
LARGEST = 127


@dataclass(frozen=True)
class Weight:
    """A constant 2-D factor of a matrix product."""

    name: str
    tensor: onnx.TensorProto

    @property
    def array_io(self) -> NDArray[np.float32]:
        """Its values, copied only on access: a token table is most of a small model."""
        return numpy_helper.to_array(self.tensor)


def weights(graph: onnx.GraphProto) -> dict[str, Weight]:
    """Matrices of SMALLEST numbers or more, by name."""
    return {
        tensor.name: Weight(tensor.name, tensor)
        for tensor in graph.initializer
        if len(tensor.dims) == 2
        and tensor.data_type == onnx.TensorProto.FLOAT
        and math.prod(tensor.dims) >= SMALLEST
        and min(tensor.dims) > 1
    }


def scaled(array_io: NDArray[np.float32], *, over: int, largest: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 numbers of at most `largest` and their scales: array = numbers * scales, one scale for each slice `over`."""
    scale = np.maximum(np.abs(array_io).max(axis=over, keepdims=True), 1e-12) / largest
    return np.rint(array_io / scale).astype(np.int8), scale.astype(np.float32)


def replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """Make `nodes` the graph's."""
    kept = [onnx.NodeProto.FromString(node.SerializeToString(deterministic=True)) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def add_constant(graph: onnx.GraphProto, name: str, value: NDArray[np.generic] | np.generic) -> str:
    """An initializer of this name, added once."""
    if all(tensor.name != name for tensor in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name
