"""What a device's accelerator would take, by onnxruntime's own lists; and graphs in onnxruntime's own file format."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import onnx

from smartbert_export.convert import own_logging, quiet_logger

# Names as onnxruntime's providers have them, and the list of operators that each is judged by.
COREML_PROGRAM = "CoreMLExecutionProvider (MLProgram)"
COREML_NETWORK = "CoreMLExecutionProvider (NeuralNetwork)"
NNAPI = "NnapiExecutionProvider"


def coverage(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Provider -> (nodes it would take, nodes there are), by onnxruntime's mobile usability checker.

    What is dynamic is not taken: judge graphs made with a fixed shape.
    """
    with own_logging():
        from onnxruntime.tools.mobile_helpers import usability_checker

    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    for tensor in bare.graph.initializer:
        if len(tensor.dims) > 1:  # a weight, of which only the shape is asked
            tensor.ClearField("raw_data")
    known = onnx.shape_inference.infer_shapes(bare, data_prop=True)
    found = {
        COREML_PROGRAM: usability_checker.check_coreml_partitions(known, True, "coreml_supported_mlprogram_ops.md"),
        COREML_NETWORK: usability_checker.check_coreml_partitions(known, True, "coreml_supported_neuralnetwork_ops.md"),
        NNAPI: usability_checker.check_nnapi_partitions(known, True),
    }
    return {provider: (info.num_supported_nodes, info.num_nodes) for provider, info in found.items()}


def convert_folder(graphs: Path, output: Path) -> Path:
    """Write each NAME.onnx of `graphs` as `output`/NAME.ort; returns the list of operators for a reduced build."""
    with own_logging():
        from onnxruntime.tools.convert_onnx_models_to_ort import OptimizationStyle, convert_onnx_models_to_ort

    output.mkdir()
    # It reports each file on stdout, and the list in its log.
    with contextlib.redirect_stdout(io.StringIO()), quiet_logger("ort_format_model.utils"):
        convert_onnx_models_to_ort(
            graphs, output, optimization_styles=[OptimizationStyle.Fixed], enable_type_reduction=True
        )
    (config,) = output.glob("*.config")
    return config
