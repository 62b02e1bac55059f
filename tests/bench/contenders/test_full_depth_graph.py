"""monolith: one plain graph of a package's own weights answers as the package does at full depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from smartbert_bench.contenders.full_depth_graph import monolith
from smartbert_runtime import SmartBert
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.package.open import open_package
from tests.conftest import SENTENCES


@pytest.mark.parametrize("layout", ["separate", "fused"])
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_it_answers_as_the_parts_do_at_full_depth(variants_dir: Path, layout: str, precision: str) -> None:
    model = SmartBert.load(variants_dir, layout=layout, precision=precision)
    graph = monolith(model.package, model.sessions.variant)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    assert [value.name for value in session.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]
    tokens = model.tokenizer.encode(SENTENCES)
    (logits_bc,) = session.run(None, dict(tokens.feeds()))
    expected = model.classify(SENTENCES, policy=model.policy("full-depth"))
    np.testing.assert_allclose(logits_bc, [answer.trace.logits_c for answer in expected], atol=1e-5)


def test_heads_that_nobody_reads_are_not_in_it(variants_dir: Path) -> None:
    package = open_package(variants_dir)
    apart, fused = (monolith(package, package.manifest.variant(layout)) for layout in ("separate", "fused"))
    weights = [
        sorted(tensor.raw_data for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
        for model in (apart, fused)
    ]
    assert weights[1] == weights[0], "of the heads in blocks, the last exit head is all there is"
    names = {tensor.name for tensor in fused.graph.initializer}
    assert any(name.startswith("block_04/heads.classify") for name in names)
    assert not any(name.startswith("block_02/heads.") for name in names)


def test_one_graph_that_decides_cannot_be_taken_apart(variants_dir: Path) -> None:
    package = open_package(variants_dir)
    with pytest.raises(ConfigError, match="'separate' or 'fused'"):
        monolith(package, package.manifest.variant("single"))
