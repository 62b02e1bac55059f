"""What a device's accelerator would take, by onnxruntime's own lists; and graphs in onnxruntime's own file format."""

from __future__ import annotations

import onnx

from smartbert_export.library_output import own_logging

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
