"""Parts with their tokens in one matrix give the same answers, in fewer operators between the attention's own."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from smartbert_export.graphs.cut import CutParts, cut_parts
from smartbert_export.graphs.flat_tokens import flatten_tokens
from tests.conftest import make_model
from tests.parity.paper_oracle import random_rows

LENGTHS = (9, 1, 4)


@pytest.fixture(scope="module", params=[("first", None), ("first", (3, 9)), ("mean", None), ("learned", None)], ids=str)
def cut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CutParts:
    """Both layouts; the fixed shape, like the query of the heads, decides which operators there are."""
    query, fixed_shape = request.param
    folder = tmp_path_factory.mktemp("cut")
    return cut_parts(make_model(3, query), folder, ("separate", "fused"), fixed_shape=fixed_shape)


def flattened(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    flatten_tokens(copy.graph)
    onnx.checker.check_model(copy, full_check=True)
    return copy


def run(model: onnx.ModelProto) -> list[np.ndarray]:
    mask_bs = random_rows(LENGTHS, 90, seed=4).attention_mask_bs
    hidden_bsh = np.random.default_rng(5).standard_normal((*mask_bs.shape, 32), dtype=np.float32)
    feeds = {"hidden": hidden_bsh, "mask": ((1 - mask_bs[:, None, None, :]) * -10000.0).astype(np.float32)}
    outputs: list[np.ndarray] = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    return outputs


@pytest.mark.parametrize("name", ["layer_02", "block_02", "block_04", "gate_02", "exit_02"])
def test_outputs_are_equal(cut: CutParts, name: str) -> None:
    model = onnx.load(cut.folder / f"{name}.onnx")
    flat = flattened(model)
    assert [value.name for value in flat.graph.output] == [value.name for value in model.graph.output]
    for wanted, found in zip(run(model), run(flat), strict=True):
        assert found.shape == wanted.shape
        np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=0)


def test_tokens_are_shaped_as_seldom_as_possible(cut: CutParts) -> None:
    """A layer: to a matrix once, four times for the attention's heads, and back at its end."""
    flat = flattened(onnx.load(cut.folder / "layer_02.onnx"))
    operators = Counter(node.op_type for node in flat.graph.node)
    assert operators["Reshape"] == 6
    assert operators["Shape"] == (1 if cut.fixed_shape is None else 0)


def test_embeddings_are_left_alone(cut: CutParts) -> None:
    model = onnx.load(cut.folder / "embeddings.onnx")
    assert flattened(model) == model
