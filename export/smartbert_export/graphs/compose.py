"""A builder of ONNX graphs that joins the graphs of parts, at top level or in a branch of an `If`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from smartbert_runtime.package.manifest import TensorSpec


class Builder:
    """Collects nodes and weights; names of parts get a prefix.

    A branch of an `If` holds its own weights: onnxruntime fuses quantized products only with weights of their graph.

    fixed: sizes of dimensions that the parts' specs only name.
    """

    def __init__(self, fixed: Mapping[str, int] = MappingProxyType({})) -> None:
        self._fixed = fixed
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.opsets: dict[str, int] = {}
        self.ir_version = 0

    def node(self, op: str, inputs: Sequence[str], output: str, **attributes: int) -> None:
        """One operator with one output."""
        node = helper.make_node(op, inputs, [output])
        node.attribute.extend(helper.make_attribute(name, value) for name, value in attributes.items())
        self.nodes.append(node)

    def constant(self, name: str, value: object) -> None:
        """A weight that belongs to no part."""
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))

    def inline(
        self, part: onnx.ModelProto, prefix: str, feeds: dict[str, str], outputs: Sequence[str]
    ) -> Sequence[str]:
        """Add a part's nodes at top level, with its inputs and outputs renamed."""
        nodes, weights = self._renamed(part, prefix, feeds, outputs)
        self.nodes += nodes
        self.weights += weights
        return outputs

    def branch(
        self,
        condition: str,
        part: onnx.ModelProto,
        prefix: str,
        feeds: dict[str, str],
        outputs: Sequence[str],
        otherwise: Sequence[str],
        specs: Sequence[TensorSpec],
    ) -> None:
        """Add an `If`: `outputs` are the part's where `condition` holds, otherwise the values named in `otherwise`."""
        inner = [f"{prefix}/then/{name}" for name in outputs]
        passed = [f"{prefix}/else/{name}" for name in outputs]
        nodes, weights = self._renamed(part, prefix, feeds, inner)
        then = helper.make_graph(nodes, f"{prefix}_run", [], self._infos(inner, specs), weights)
        other = helper.make_graph(
            [helper.make_node("Identity", [value], [name]) for value, name in zip(otherwise, passed, strict=True)],
            f"{prefix}_not_run",
            [],
            self._infos(passed, specs),
        )
        self.nodes.append(helper.make_node("If", [condition], list(outputs), then_branch=then, else_branch=other))

    def _renamed(
        self, part: onnx.ModelProto, prefix: str, feeds: dict[str, str], outputs: Sequence[str]
    ) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        """The part's nodes and weights."""
        self.ir_version = max(self.ir_version, part.ir_version)
        self.opsets |= {entry.domain: entry.version for entry in part.opset_import}
        names = dict(feeds)
        names |= {value.name: name for value, name in zip(part.graph.output, outputs, strict=True)}
        weights = list(part.graph.initializer)
        for tensor in weights:
            names[tensor.name] = f"{prefix}/{tensor.name}"
            tensor.name = names[tensor.name]
        nodes = []
        for node in part.graph.node:
            for places in (node.input, node.output):
                for number, name in enumerate(places):
                    if name:  # an empty name is an omitted input
                        places[number] = names.setdefault(name, f"{prefix}/{name}")
            node.name = ""
            nodes.append(node)
        return nodes, weights

    def model(self, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> onnx.ModelProto:
        """The graph of all that was collected."""
        graph = helper.make_graph(
            self.nodes,
            "smartbert",
            self._infos([spec.name for spec in inputs], inputs),
            self._infos([spec.name for spec in outputs], outputs),
            self.weights,
        )
        opsets = [helper.make_opsetid(domain, version) for domain, version in sorted(self.opsets.items())]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version)

    def _infos(self, names: Sequence[str], specs: Sequence[TensorSpec]) -> list[onnx.ValueInfoProto]:
        types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
        return [
            helper.make_tensor_value_info(
                name, types[spec.dtype], [int(d) if d.isdigit() else self._fixed.get(d, d) for d in spec.dims]
            )
            for name, spec in zip(names, specs, strict=True)
        ]
