"""Graphs for accelerators and reduced builds: fixed shapes with nothing dynamic left, and onnxruntime's format."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import smartbert_export.cli.export
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_export.graphs.coverage import COREML_NETWORK, COREML_PROGRAM, NNAPI, coverage
from smartbert_export.graphs.ort_format import convert_folder
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_export.parts.signatures import LAYOUTS
from smartbert_runtime import SmartBert
from smartbert_runtime.classifier import Prediction
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import read_golden
from smartbert_runtime.parity.verify import verify
from smartbert_runtime.sessions.sessions import Sessions
from tests.conftest import SENTENCES
from tests.export.test_package import contents
from tests.helpers import assert_named_error, run_main

# onnxruntime's converter leaves closing the .ort files that it has read to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file.*ort:ResourceWarning")

LENGTH = 16
POLICY = Policy(exit_threshold=0.5)
ORT_LAYOUTS, ORT_PRECISIONS = ("fused", "single"), ("fp32", "int8")


@pytest.fixture(scope="module")
def fixed_dir(
    tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path, model: SmartBertForSequenceClassification
) -> Path:
    """The tiny model's layouts, made for one text of 16 tokens.

    Its position table is longer than it need be: at a fixed length, the tracer folds one of up to 8192 numbers away.
    """
    folder = tmp_path_factory.mktemp("fixed")
    checkpoint = Path(shutil.copytree(checkpoint_dir, folder / "ckpt"))
    config, state = copy.deepcopy(model.config), model.state_dict()
    config.backbone_config = {**config.backbone_config, "max_position_embeddings": 300}
    name = "backbone.embeddings.position_embeddings.weight"
    longer = SmartBertForSequenceClassification(config)
    longer.load_state_dict(state | {name: torch.cat([state[name], torch.ones(300 - len(state[name]), 32)])})
    longer.save_pretrained(checkpoint)
    export_package(checkpoint, folder / "out", ExportOptions(graphs=GraphOptions(layouts=LAYOUTS, fixed_shape=(1, 16))))
    return folder / "out"


def dimensions(graph: onnx.GraphProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    """Of everything that has a shape, also inside the branches of an If."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield from value.type.tensor_type.shape.dim
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from dimensions(attribute.g)


def test_no_dimension_of_a_fixed_part_is_dynamic(fixed_dir: Path) -> None:
    parts = sorted(file for file in (fixed_dir / "graphs").iterdir() if file.name != "model.onnx")
    assert len(parts) == 1 + 4 * 4
    for file in parts:
        known = onnx.shape_inference.infer_shapes(onnx.load(file), data_prop=True, strict_mode=True)
        found = list(dimensions(known.graph))
        assert len(found) >= 40, "shapes were inferred"
        assert not [dim.dim_param for dim in found if not dim.HasField("dim_value")], file.name


def test_no_dimension_of_the_fixed_single_graphs_interface_is_dynamic(fixed_dir: Path) -> None:
    """Inside its branches, shapes that depend on constants outside are beyond onnx's inference."""
    graph = onnx.load(fixed_dir / "graphs" / "model.onnx").graph
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


def test_the_same_check_finds_the_dynamic_dimensions_of_other_graphs(variants_dir: Path) -> None:
    known = onnx.shape_inference.infer_shapes(onnx.load(variants_dir / "graphs" / "layer_01.onnx"), data_prop=True)
    assert {"batch", "sequence"} <= {dim.dim_param for dim in dimensions(known.graph)}


def test_the_manifest_says_the_shape_and_cuts_texts_to_it(fixed_dir: Path) -> None:
    manifest = open_package(fixed_dir).manifest
    assert manifest.model.fixed_shape == (1, LENGTH) and manifest.model.max_length == LENGTH
    settings = json.loads((fixed_dir / "tokenizer" / "settings.json").read_text(encoding="utf-8"))
    assert settings["max_length"] == LENGTH
    summary = (fixed_dir / "SUMMARY.md").read_text(encoding="utf-8")
    assert "longest input: 16 tokens" in summary and "--fixed-shape" not in summary


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_fixed_package_verifies_and_decides_as_pytorch_does(
    fixed_dir: Path, model: SmartBertForSequenceClassification, layout: str
) -> None:
    package = open_package(fixed_dir)
    sessions = Sessions(package, package.manifest.variant(layout))
    assert verify(sessions, read_golden(package), POLICY, oracle="the recording").first_failure is None
    opened = SmartBert.load(fixed_dir, layout=layout)
    expected = trace_rows(model, opened.tokenizer.encode(SENTENCES), POLICY)
    for found, wanted in zip(opened.classify(SENTENCES), expected, strict=True):
        assert found.trace.decisions() == wanted.decisions()
        np.testing.assert_allclose(found.trace.logits_c, wanted.logits_c, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_answers_are_those_of_the_dynamic_package(fixed_dir: Path, variants_dir: Path, layout: str) -> None:
    fixed, dynamic = (SmartBert.load(folder, layout=layout) for folder in (fixed_dir, variants_dir))
    short = [p.text for p in fixed.classify(SENTENCES) if not p.truncated]
    assert 12 <= len(short) < len(SENTENCES)
    for one, other in zip(fixed.classify(short), dynamic.classify(short), strict=True):
        assert one.trace.decisions() == other.trace.decisions()
        np.testing.assert_allclose(one.trace.logits_c, other.trace.logits_c, atol=1e-5)


def test_coreml_would_take_gates_and_exits_whole_and_nearly_all_of_a_layer(fixed_dir: Path) -> None:
    manifest = open_package(fixed_dir).manifest
    for component in manifest.components:
        for variant, found in component.coverage.items():
            assert list(found) == [COREML_PROGRAM, COREML_NETWORK, NNAPI]
            taken, nodes = found[COREML_PROGRAM]
            assert 0 < taken <= nodes, f"{component.name} of {variant}"
            if component.role in ("gate", "exit"):
                assert taken == nodes, f"{component.name}: {taken} of {nodes}"
            if component.role in ("layer", "block"):
                assert taken >= 0.98 * nodes, f"{component.name}: {taken} of {nodes}"


def test_dynamic_graphs_are_hardly_taken_and_the_summary_says_what_helps(variants_dir: Path) -> None:
    taken, nodes = coverage(onnx.load(variants_dir / "graphs" / "layer_01.onnx"))[COREML_PROGRAM]
    assert nodes >= 30 and taken < 0.2 * nodes
    counted = open_package(variants_dir).manifest.component("layer_03").coverage["separate-fp32"][COREML_PROGRAM]
    assert counted == (taken, nodes)
    assert "export with --fixed-shape" in (variants_dir / "SUMMARY.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("shape", ["1x16", "16", "1,2,3", "one,16", "", "1,", "1.5,16", "0,16", "1,1", "1,25", "-1,16"])
def test_a_shape_that_makes_no_sense_is_a_named_error_and_touches_nothing(
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


@pytest.fixture(scope="module")
def ort_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """Two layouts in fp32 and int8 as .ort files."""
    folder = tmp_path_factory.mktemp("ort") / "out"
    graphs = GraphOptions(layouts=ORT_LAYOUTS, precisions=ORT_PRECISIONS, ort_format=True)
    export_package(checkpoint_dir, folder, ExportOptions(graphs=graphs))
    return folder


def test_an_ort_package_holds_ort_files_and_the_list_of_operators_only(ort_dir: Path) -> None:
    names = [file.name for file in (ort_dir / "graphs").iterdir()]
    graphs = [name for name in names if name != "required_operators.config"]
    assert len(graphs) == len(names) - 1 and {Path(name).suffix for name in graphs} == {".ort"}
    manifest = open_package(ort_dir).manifest
    entries = {entry.file for c in manifest.components for entry in c.files.values()}
    assert entries == {f"graphs/{name}" for name in graphs}
    # The flatbuffer's own mark: an .onnx by another name would not have it.
    assert all((ort_dir / file).read_bytes()[4:8] == b"ORTM" for file in entries)


def test_the_list_of_operators_is_vouched_for_and_names_no_place(ort_dir: Path) -> None:
    manifest = open_package(ort_dir).manifest
    assert manifest.operators is not None and manifest.operators.file == "graphs/required_operators.config"
    text = (ort_dir / manifest.operators.file).read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines and text.endswith("\n")
    for line in lines:
        domain, version, _ = line.split(";", 2)
        assert domain in ("ai.onnx", "com.microsoft") and int(version) > 0
    for operator in ("If", "MatMulInteger", "LayerNormalization", "Softmax", "Gather"):
        assert operator in text
    for place in ("/", "\\", "#", "graphs", ".ort", "smartbert"):
        assert place not in text


def answers(folder: Path, layout: str, precision: str, texts: Sequence[str] = SENTENCES) -> list[Prediction]:
    return SmartBert.load(folder, layout=layout, precision=precision, threads=1).classify(texts)


@pytest.mark.parametrize("precision", ORT_PRECISIONS)
@pytest.mark.parametrize("layout", ORT_LAYOUTS)
def test_ort_files_answer_bit_for_bit_as_the_onnx_files_do(
    ort_dir: Path, variants_dir: Path, layout: str, precision: str
) -> None:
    pairs = zip(answers(ort_dir, layout, precision), answers(variants_dir, layout, precision), strict=True)
    for one, other in pairs:
        assert one.trace.decisions() == other.trace.decisions()
        assert np.array_equal(one.trace.logits_c, other.trace.logits_c)


@pytest.mark.parametrize("precision", ORT_PRECISIONS)
@pytest.mark.parametrize("layout", ORT_LAYOUTS)
def test_an_ort_package_verifies(ort_dir: Path, layout: str, precision: str) -> None:
    package = open_package(ort_dir)
    sessions = Sessions(package, package.manifest.variant(layout, precision))
    assert verify(sessions, read_golden(package), POLICY, oracle="the recording").first_failure is None


def test_converting_says_nothing_on_stdout(
    variants_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "graphs").mkdir()
    shutil.copy(variants_dir / "graphs" / "gate_01.onnx", tmp_path / "graphs")
    config = convert_folder(tmp_path / "graphs", tmp_path / "ort")
    assert config.suffix == ".config" and (tmp_path / "ort" / "gate_01.ort").is_file()
    assert capfd.readouterr().out == ""
