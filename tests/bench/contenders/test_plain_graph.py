"""The contender `plain`: one graph of the package's own weights, which matches the package at full depth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from smartbert_bench.contenders.contender import Contender
from smartbert_bench.contenders.plain_graph import plain_contenders, plain_graph
from smartbert_bench.settings import BenchSettings
from smartbert_bench.workers.graph_worker import load_graph_runner
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_runtime import SmartBert
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.package.open import open_package
from tests.conftest import SENTENCES

SETTINGS = BenchSettings(preset="default", providers=("CPUExecutionProvider",), threads=1)


def sent_spec(contender: Contender) -> dict[str, object]:
    """The spec as it arrives in the process."""
    spec: dict[str, object] = json.loads(json.dumps(contender.worker.spec))
    return spec


@pytest.mark.parametrize("layout", ["separate", "fused"])
@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_plain_graph_matches_full_depth(variants_dir: Path, layout: str, precision: str) -> None:
    model = SmartBert.load(variants_dir, layout=layout, precision=precision)
    graph = plain_graph(model.package, model.sessions.variant)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    assert [value.name for value in session.get_inputs()] == ["input_ids", "attention_mask", "token_type_ids"]
    tokens = model.tokenizer.encode(SENTENCES)
    (logits_bc,) = session.run(None, dict(tokens.feeds()))
    expected = model.classify(SENTENCES, policy=model.policy("full-depth"))
    np.testing.assert_allclose(logits_bc, [prediction.trace.logits_c for prediction in expected], atol=1e-5)


def test_unused_heads_are_dropped(variants_dir: Path) -> None:
    package = open_package(variants_dir)
    separate, fused = (plain_graph(package, package.manifest.variant(layout)) for layout in ("separate", "fused"))
    weights = [
        sorted(tensor.raw_data for tensor in model.graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT)
        for model in (separate, fused)
    ]
    assert weights[1] == weights[0], "of the heads inside blocks, only the last exit head remains"
    names = {tensor.name for tensor in fused.graph.initializer}
    assert any(name.startswith("block_04/heads.classify") for name in names)
    assert not any(name.startswith("block_02/heads.") for name in names)


def test_layout_single_is_refused(variants_dir: Path, tmp_path: Path) -> None:
    package = open_package(variants_dir)
    single = package.manifest.variant("single", "fp32")
    with pytest.raises(ConfigError, match="'separate' or 'fused'"):
        plain_graph(package, single)
    only_single = replace(package, manifest=replace(package.manifest, variants=(single,)))
    with pytest.raises(ConfigError, match="'separate' or 'fused'"):
        plain_contenders(only_single, [single], SETTINGS, tmp_path)


def test_one_contender_per_precision(variants_dir: Path, tmp_path: Path) -> None:
    package = open_package(variants_dir)
    contenders = plain_contenders(package, package.manifest.variants, SETTINGS, tmp_path)
    assert {contender.name for contender in contenders} == {"plain-fp32", "plain-int8", "plain-int4"}
    tokenizer = package.manifest.tokenizer
    for contender in contenders:
        graph = (tmp_path / f"plain.{contender.precision}.onnx").stat().st_size
        assert contender.disk_bytes == graph + tokenizer.tokenizer.bytes + tokenizer.settings.bytes
        model = SmartBert.load(variants_dir, layout="separate", precision=contender.precision)
        expected = [prediction.label for prediction in model.classify(SENTENCES, policy=model.policy("full-depth"))]
        runner = load_graph_runner(sent_spec(contender), True)
        for batch_size in (1, 7):
            labels, layers_run = runner.classify(SENTENCES, None, mode="full depth", batch_size=batch_size)
            assert (labels, layers_run) == (expected, None)


def test_fixed_shape_is_padded(checkpoint_dir: Path, tmp_path: Path) -> None:
    options = ExportOptions(graphs=GraphOptions(layouts=("fused",), fixed_shape=(2, 24)))
    package_dir = tmp_path / "out"
    export_package(checkpoint_dir, package_dir, options)
    package = open_package(package_dir)
    (contender,) = plain_contenders(package, package.manifest.variants, SETTINGS, tmp_path)
    model = SmartBert.load(package_dir)
    expected = [prediction.label for prediction in model.classify(SENTENCES, policy=model.policy("full-depth"))]
    runner = load_graph_runner(sent_spec(contender), True)
    assert runner.classify(SENTENCES, None, mode="full depth", batch_size=5) == (expected, None)
