"""Operator coverage: how many nodes of a graph an accelerator would take, by onnxruntime's own lists."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from smartbert_export.graphs.graph_files import VariantGraphs
from smartbert_export.library_output import own_logging
from smartbert_runtime.reporting import SILENT, Reporter

# The providers' names in onnxruntime, and the list of operators that each is judged by.
COREML_PROGRAM = "CoreMLExecutionProvider (MLProgram)"
COREML_NETWORK = "CoreMLExecutionProvider (NeuralNetwork)"
NNAPI = "NnapiExecutionProvider"

# Provider -> (nodes it would take, nodes in all).
Coverage = dict[str, tuple[int, ...]]


def count_coverage(variants: Sequence[VariantGraphs], *, reporter: Reporter = SILENT) -> dict[Path, Coverage]:
    """Operator coverage of every graph file, counted once for each kind of part in each precision and scheme.

    It is a report only and ends no export: where it cannot be counted it is empty, with a note that says why.
    """
    reporter.step("counting operator coverage")
    counted: dict[tuple[str, str, str], Coverage] = {}
    by_file: dict[Path, Coverage] = {}
    for graph in (graph for variant in variants for graph in variant.graphs):
        key = graph.part.kind, graph.precision, graph.scheme
        if key not in counted:
            try:
                counted[key] = coverage(onnx.load(graph.file))
            except Exception as err:  # the checker raises what it likes, NotImplementedError and IndexError among them
                reason = str(err).strip().partition("\n")[0] or type(err).__name__
                reporter.note(
                    f"operator coverage could not be counted: {graph.part.name} ({graph.precision}): {reason}"
                )
                counted[key] = {}
        by_file[graph.file] = counted[key]
    return by_file


def coverage(model: onnx.ModelProto) -> Coverage:
    """Operator coverage of one graph, by onnxruntime's mobile usability checker, which may raise any exception.

    Nodes of dynamic shape are not taken: count graphs made with a fixed shape.
    """
    with own_logging():
        from onnxruntime.tools.mobile_helpers import usability_checker

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        if len(tensor.dims) > 1:  # a weight: only its shape matters here
            tensor.ClearField("raw_data")
    known = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    partitions = {
        COREML_PROGRAM: usability_checker.check_coreml_partitions(known, True, "coreml_supported_mlprogram_ops.md"),
        COREML_NETWORK: usability_checker.check_coreml_partitions(known, True, "coreml_supported_neuralnetwork_ops.md"),
        NNAPI: usability_checker.check_nnapi_partitions(known, True),
    }
    return {provider: (info.num_supported_nodes, info.num_nodes) for provider, info in partitions.items()}
