"""Graphs of a fixed shape, for accelerators: nothing in them is dynamic, and they decide as the dynamic ones do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest

import smartbert_export.cli.export
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_export.parts.signatures import LAYOUTS
from smartbert_runtime import SmartBert
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import read_golden
from smartbert_runtime.parity.verify import verify
from smartbert_runtime.sessions.sessions import Sessions
from tests.conftest import SENTENCES
from tests.export.folder_contents import contents
from tests.helpers import assert_named_error, run_main

LENGTH = 16
POLICY = Policy(exit_threshold=0.5)


def dimensions(graph: onnx.GraphProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    """Of everything that has a shape, also inside the branches of an If."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield from value.type.tensor_type.shape.dim
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from dimensions(attribute.g)


def test_parts_have_no_dynamic_dimension(fixed_layouts_dir: Path) -> None:
    parts = sorted(file for file in (fixed_layouts_dir / "graphs").iterdir() if file.name != "model.onnx")
    assert len(parts) == 1 + 4 * 4
    for file in parts:
        known = onnx.shape_inference.infer_shapes(onnx.load(file), data_prop=True, strict_mode=True)
        found = list(dimensions(known.graph))
        assert len(found) >= 40, "shapes were inferred"
        assert not [dim.dim_param for dim in found if not dim.HasField("dim_value")], file.name


def test_single_graph_interface(fixed_layouts_dir: Path) -> None:
    """Inside its branches, shapes that depend on constants outside are beyond onnx's inference."""
    graph = onnx.load(fixed_layouts_dir / "graphs" / "model.onnx").graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "input_ids": [1, LENGTH],
        "attention_mask": [1, LENGTH],
        "token_type_ids": [1, LENGTH],
        "skip_threshold": [],
        "exit_threshold": [],
        "logits": [1, 3],
        "exit_layer": [],
        "layers_run": [4],
    }


def test_check_finds_dynamic_dimensions(variants_dir: Path) -> None:
    known = onnx.shape_inference.infer_shapes(onnx.load(variants_dir / "graphs" / "layer_01.onnx"), data_prop=True)
    assert {"batch", "sequence"} <= {dim.dim_param for dim in dimensions(known.graph)}


def test_manifest_and_tokenizer_length(fixed_layouts_dir: Path) -> None:
    manifest = open_package(fixed_layouts_dir).manifest
    assert manifest.model.fixed_shape == (1, LENGTH) and manifest.model.max_length == LENGTH
    settings = json.loads((fixed_layouts_dir / "tokenizer" / "settings.json").read_text(encoding="utf-8"))
    assert settings["max_length"] == LENGTH
    summary = (fixed_layouts_dir / "SUMMARY.md").read_text(encoding="utf-8")
    assert "longest input: 16 tokens" in summary and "--fixed-shape" not in summary


@pytest.mark.parametrize("layout", LAYOUTS)
def test_decisions_match_pytorch(
    fixed_layouts_dir: Path, model: SmartBertForSequenceClassification, layout: str
) -> None:
    package = open_package(fixed_layouts_dir)
    sessions = Sessions(package, package.manifest.variant(layout))
    assert verify(sessions, read_golden(package), POLICY, oracle="the recording").first_failure is None
    opened = SmartBert.load(fixed_layouts_dir, layout=layout)
    expected = trace_rows(model, opened.tokenizer.encode(SENTENCES), POLICY)
    for found, wanted in zip(opened.classify(SENTENCES), expected, strict=True):
        assert found.trace.decisions() == wanted.decisions()
        np.testing.assert_allclose(found.trace.logits_c, wanted.logits_c, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_answers_match_dynamic_package(fixed_layouts_dir: Path, variants_dir: Path, layout: str) -> None:
    fixed, dynamic = (SmartBert.load(folder, layout=layout) for folder in (fixed_layouts_dir, variants_dir))
    short = [p.text for p in fixed.classify(SENTENCES) if not p.truncated]
    assert 12 <= len(short) < len(SENTENCES)
    for one, other in zip(fixed.classify(short), dynamic.classify(short), strict=True):
        assert one.trace.decisions() == other.trace.decisions()
        np.testing.assert_allclose(one.trace.logits_c, other.trace.logits_c, atol=1e-5)


@pytest.mark.parametrize("shape", ["1x16", "16", "1,2,3", "one,16", "", "1,", "1.5,16", "0,16", "1,1", "1,25", "-1,16"])
def test_bad_shape(
    checkpoint_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shape: str,
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("mine", encoding="utf-8")
    run = run_main(
        smartbert_export.cli.export.main,
        checkpoint_dir,
        tmp_path / "out",
        "--overwrite",
        f"--fixed-shape={shape}",
        monkeypatch=monkeypatch,
        capsys=capsys,
    )
    assert_named_error(run, "fixed-shape" if "25" not in shape else "longer than the model's 24")
    assert contents(tmp_path) == {"out/manifest.json": b"mine"}
