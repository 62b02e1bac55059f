"""One part's graph in int8 or int4; its interface stays float32, and no answer depends on the rest of the batch.

- int8: weights with a scale per output channel, activations with a fixed scale or one per token (int8_products.py).
  Standard operators only. Weights that multiply one token per text (most of a head) are int8 in the file only.
- int4: onnxruntime's `MatMulNBits`, a scale for each block of 32 weights: for size, not for speed.
- Embedding tables are int8 with a scale per table row in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import onnx

from smartbert_export.graphs.simplify import drop_unused
from smartbert_export.library_output import own_logging, quiet_logger
from smartbert_export.precisions import FP32, INT4, WEIGHT_RANGE
from smartbert_export.quantize.activation_scales import ActivationScale
from smartbert_export.quantize.int8_products import quantize_products
from smartbert_export.quantize.stored_weights import gemm_to_matmul, store_gemms, store_tables
from smartbert_export.quantize.weights import weights

BLOCK = 32


def quantized(
    model: onnx.ModelProto,
    precision: str,
    target: str,
    *,
    scales: Mapping[str, ActivationScale] = MappingProxyType({}),
    ort_format: bool = False,
) -> onnx.ModelProto:
    """One part's graph in `precision`. `model` itself is changed.

    scales: of the tensors that have a fixed one in int8.
    ort_format: for a file in which onnxruntime has folded constants already, so that nothing is int8 in the file only.
    """
    if precision == FP32:
        return model
    store_tables(model.graph)
    if precision == INT4:
        gemm_to_matmul(model.graph)
        model = _quantize_blocks(model)
    else:
        (gemm_to_matmul if ort_format else store_gemms)(model.graph)
        quantize_products(model.graph, scales, WEIGHT_RANGE[target])
    drop_unused(model.graph)
    return model


def _quantize_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    with own_logging():
        from onnxruntime.quantization.matmul_nbits_quantizer import DefaultWeightOnlyQuantConfig, MatMulNBitsQuantizer

    known = weights(model.graph)
    left = [node.name for node in _named(model.graph) if node.op_type == "MatMul" and node.input[1] not in known]
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
