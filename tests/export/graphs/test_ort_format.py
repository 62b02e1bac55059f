"""Packages in onnxruntime's own file format: .ort files only, with the list of operators for a reduced build."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from smartbert_export.graphs.ort_format import convert_folder
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_runtime import Prediction, SmartBert
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import read_golden
from smartbert_runtime.parity.verify import verify
from smartbert_runtime.sessions.sessions import Sessions
from tests.conftest import SENTENCES

# onnxruntime's converter leaves closing the .ort files that it has read to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed file.*ort:ResourceWarning")

POLICY = Policy(exit_threshold=0.5)
LAYOUTS, PRECISIONS = ("fused", "single"), ("fp32", "int8")


@pytest.fixture(scope="module")
def ort_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """Two layouts in fp32 and int8 as .ort files."""
    folder = tmp_path_factory.mktemp("ort") / "out"
    graphs = GraphOptions(layouts=LAYOUTS, precisions=PRECISIONS, ort_format=True)
    export_package(checkpoint_dir, folder, ExportOptions(graphs=graphs))
    return folder


def answers(folder: Path, layout: str, precision: str, texts: Sequence[str] = SENTENCES) -> list[Prediction]:
    return SmartBert.load(folder, layout=layout, precision=precision, threads=1).classify(texts)


def test_graphs_folder(ort_dir: Path) -> None:
    names = [file.name for file in (ort_dir / "graphs").iterdir()]
    graphs = [name for name in names if name != "required_operators.config"]
    assert len(graphs) == len(names) - 1 and {Path(name).suffix for name in graphs} == {".ort"}
    manifest = open_package(ort_dir).manifest
    entries = {entry.file for c in manifest.components for entry in c.files.values()}
    assert entries == {f"graphs/{name}" for name in graphs}
    # The flatbuffer's own mark: an .onnx by another name would not have it.
    assert all((ort_dir / file).read_bytes()[4:8] == b"ORTM" for file in entries)


def test_required_operators(ort_dir: Path) -> None:
    manifest = open_package(ort_dir).manifest
    assert manifest.operators is not None and manifest.operators.file == "graphs/required_operators.config"
    text = (ort_dir / manifest.operators.file).read_text(encoding="utf-8")
    lines = text.splitlines()
    assert lines and text.endswith("\n")
    for line in lines:
        domain, version, _ = line.split(";", 2)
        assert domain in ("ai.onnx", "com.microsoft") and int(version) > 0
    for operator in ("If", "QGemm", "LayerNormalization", "Softmax", "Gather"):
        assert operator in text
    for place in ("/", "\\", "#", "graphs", ".ort", "smartbert"):
        assert place not in text


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_answers_are_bit_equal_to_onnx(ort_dir: Path, variants_dir: Path, layout: str, precision: str) -> None:
    pairs = zip(answers(ort_dir, layout, precision), answers(variants_dir, layout, precision), strict=True)
    for one, other in pairs:
        assert one.trace.decisions() == other.trace.decisions()
        assert np.array_equal(one.trace.logits_c, other.trace.logits_c)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_ort_package_verifies(ort_dir: Path, layout: str, precision: str) -> None:
    package = open_package(ort_dir)
    sessions = Sessions(package, package.manifest.variant(layout, precision))
    assert verify(sessions, read_golden(package), POLICY, oracle="the recording").first_failure is None


def test_converting_prints_nothing(variants_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "graphs").mkdir()
    shutil.copy(variants_dir / "graphs" / "gate_01.onnx", tmp_path / "graphs")
    config = convert_folder(tmp_path / "graphs", tmp_path / "ort")
    assert config.suffix == ".config" and (tmp_path / "ort" / "gate_01.ort").is_file()
    assert capfd.readouterr().out == ""
