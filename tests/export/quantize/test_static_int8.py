"""int8 with fixed scales: fused by onnxruntime, close to fp32, and no text's output depends on other texts."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from smartbert.activations.ranges import ActivationRanges
from smartbert_export.graphs.cut import CutParts
from smartbert_export.parts.signatures import Part, parts
from smartbert_export.precisions import INT8, STATIC, STATIC_CLIPPED
from smartbert_export.quantize.activation_scales import covering, part_scales, smoothed
from smartbert_export.quantize.quantized_graph import quantized
from smartbert_runtime import SmartBert
from smartbert_runtime.errors import ExportError
from tests.conftest import SENTENCES

Arrays = dict[str, NDArray[Any]]
# Fused products and rounded inputs of a loaded part: six products of a layer read four tensors; W of both heads is a
# seventh product, which reads the layer's output. The heads alone have none that is large enough.
FUSED = {"layer_02": (6, 4), "block_02": (7, 5), "block_04": (6, 4), "gate_02": (0, 0), "exit_02": (0, 0)}


def part_named(cut: CutParts, name: str) -> Part:
    layout = "fused" if name.startswith("block") else "separate"
    return next(part for part in parts(cut.config, layout) if part.name == name)


def static(cut: CutParts, name: str, ranges: ActivationRanges, scheme: str = STATIC) -> onnx.ModelProto:
    part = part_named(cut, name)
    model = onnx.load(cut.file(part))
    return quantized(model, INT8, "x86", scales=part_scales(model.graph, part, ranges, scheme))


def run(model: onnx.ModelProto, feeds: Arrays) -> list[NDArray[np.float32]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    outputs: list[NDArray[np.float32]] = onnxruntime.InferenceSession(model.SerializeToString(), options).run(
        None, feeds
    )
    return outputs


def operators_when_loaded(model: onnx.ModelProto, tmp_path: Path) -> Counter[str]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node)


@pytest.fixture(scope="module")
def state(classifier: SmartBert) -> Arrays:
    """Real hidden states, padded: what layer 2 and the heads before it read."""
    classifier.classify(list(SENTENCES))
    tokens = classifier.tokenizer.encode(list(SENTENCES[:6]))
    hidden_bsh, mask_b11s = classifier.sessions.run("embeddings", tokens.feeds())
    (hidden_bsh,) = classifier.sessions.run("layer_01", {"hidden": hidden_bsh, "mask": mask_b11s})
    return {"hidden": hidden_bsh, "mask": mask_b11s}


@pytest.mark.parametrize("scheme", [STATIC, STATIC_CLIPPED])
@pytest.mark.parametrize("name", FUSED)
def test_fused_nodes(cut: CutParts, ranges: ActivationRanges, name: str, scheme: str, tmp_path: Path) -> None:
    model = static(cut, name, ranges, scheme)
    assert {node.domain for node in model.graph.node} == {""}, "standard operators only"
    found = operators_when_loaded(model, tmp_path)
    assert (found["QGemm"], found["QuantizeLinear"]) == FUSED[name]
    assert found["DequantizeLinear"] == 0


@pytest.mark.parametrize("name", ["layer_02", "block_02"])
def test_close_to_fp32(cut: CutParts, ranges: ActivationRanges, name: str, state: Arrays) -> None:
    exact = onnx.load(cut.file(part_named(cut, name)))
    real_bs = state["mask"][:, 0, 0] == 0
    wanted, found = run(exact, state)[0], run(static(cut, name, ranges), state)[0]
    off = np.sqrt(np.square(found - wanted)[real_bs].mean() / np.square(wanted)[real_bs].mean())
    assert 1e-4 < off < 0.05


@pytest.mark.parametrize("name", ["layer_02", "block_02"])
def test_alone_in_a_batch_and_padded(cut: CutParts, ranges: ActivationRanges, name: str, state: Arrays) -> None:
    model = static(cut, name, ranges)
    together = run(model, state)
    lengths = (state["mask"][:, 0, 0] == 0).sum(axis=1)
    for row, length in enumerate(lengths):
        short = {"hidden": state["hidden"][row : row + 1, :length], "mask": state["mask"][row : row + 1, ..., :length]}
        for whole, alone in zip(together, run(model, short), strict=True):
            found = whole[row, :length] if whole.ndim == 3 else whole[row]
            np.testing.assert_allclose(found, alone[0], atol=1e-5, rtol=0)


def test_scales_are_those_of_the_ranges(cut: CutParts, ranges: ActivationRanges) -> None:
    """Block 2: query, key and value read the state after layer 1, the heads the state after layer 2."""
    arrays = {t.name: numpy_helper.to_array(t) for t in static(cut, "block_02", ranges).graph.initializer}
    points = {"hidden": "hidden_01", "hidden_next": "hidden_02"}
    for tensor, point in points.items():
        recorded = ranges.points[point]
        scale = smoothed(recorded)
        assert float(arrays[f"{tensor}.flat.scale"]) == scale.scale
        assert int(arrays[f"{tensor}.flat.zero_point"]) == scale.zero_point
    inner = {name for name in arrays if name.endswith(".zero_point") and arrays[name].dtype == np.uint8}
    mixed = ranges.points["layer_02/attention.output.dense"]
    scales = {float(arrays[name.replace("zero_point", "scale")]) for name in inner}
    assert covering(mixed.minimum, mixed.maximum).scale in scales, "not smoothed"
    assert len(inner) == 5 and {"hidden.flat.zero_point", "hidden_next.flat.zero_point"} < inner


def test_smoothed_products_compute_the_same(cut: CutParts, ranges: ActivationRanges, state: Arrays) -> None:
    """What linear layers read is divided, and their weights are multiplied by the same numbers."""
    bare = replace(ranges, points={name: replace(p, minima=(), maxima=()) for name, p in ranges.points.items()})
    part = part_named(cut, "layer_02")
    wanted = run(onnx.load(cut.file(part)), state)[0]
    real_bs = state["mask"][:, 0, 0] == 0
    off = {}
    for name, known in (("smoothed", ranges), ("bare", bare)):
        model = static(cut, "layer_02", known)
        divided = {node.input[0] for node in model.graph.node if node.output[0].endswith(".divided")}
        assert len(divided) == (3 if name == "smoothed" else 0)
        off[name] = np.square(run(model, state)[0] - wanted)[real_bs].mean()
    assert 0.0 < off["smoothed"] < 1.5 * off["bare"], "the tiny model's channels are about equally wide"


def test_ranges_of_a_narrower_model_are_refused(cut: CutParts, ranges: ActivationRanges) -> None:
    point = ranges.points["hidden_01"]
    narrower = replace(point, minima=point.minima[:-1], maxima=point.maxima[:-1])
    other = replace(ranges, points={**ranges.points, "hidden_01": narrower})
    with pytest.raises(ExportError, match=r"where .* takes") as error:
        static(cut, "layer_02", other)
    assert "--scales-file" in str(error.value.hint)


def test_exit_part_reads_its_layers_output(cut: CutParts, ranges: ActivationRanges) -> None:
    part = part_named(cut, "exit_02")
    graph = onnx.load(cut.file(part)).graph
    recorded = ranges.points["hidden_02"]
    assert part_scales(graph, part, ranges, STATIC)["hidden"] == smoothed(recorded)
    gate = part_named(cut, "gate_02")
    recorded = ranges.points["hidden_01"]
    found = part_scales(onnx.load(cut.file(gate)).graph, gate, ranges, STATIC)["hidden"]
    assert found == smoothed(recorded)


def test_unknown_tensor_gets_a_scale_per_token(cut: CutParts, ranges: ActivationRanges, tmp_path: Path) -> None:
    known = {name: point for name, point in ranges.points.items() if name != "layer_02/output.dense"}
    fewer = ActivationRanges(texts=ranges.texts, tokens=ranges.tokens, points=known)
    model = static(cut, "layer_02", fewer)
    operators = Counter(node.op_type for node in model.graph.node)
    assert (operators["ReduceMax"], operators["QuantizeLinear"]) == (1, 4)
    loaded = operators_when_loaded(model, tmp_path)
    assert (loaded["QGemm"], loaded["MatMulIntegerToFloat"], loaded["DequantizeLinear"]) == (5, 1, 0)
