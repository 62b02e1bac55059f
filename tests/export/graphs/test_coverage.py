"""Operator coverage: counted for every part, and never the end of an export."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from smartbert_export.graphs.coverage import COREML_NETWORK, COREML_PROGRAM, NNAPI, coverage
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import ExportReport, export_package
from smartbert_runtime import SmartBert
from smartbert_runtime.package.open import open_package
from tests.conftest import SENTENCES
from tests.export.reporters import Recorder

UNCOUNTED = "operator coverage could not be counted: layer_01 (int4): "


def test_coreml_coverage_of_fixed_shape(fixed_layouts_dir: Path) -> None:
    manifest = open_package(fixed_layouts_dir).manifest
    for component in manifest.components:
        for variant, found in component.coverage.items():
            assert list(found) == [COREML_PROGRAM, COREML_NETWORK, NNAPI]
            taken, nodes = found[COREML_PROGRAM]
            assert 0 < taken <= nodes, f"{component.name} of {variant}"
            if component.role in ("gate", "exit"):
                assert taken == nodes, f"{component.name}: {taken} of {nodes}"
            if component.role in ("layer", "block"):
                assert taken >= 0.98 * nodes, f"{component.name}: {taken} of {nodes}"


def test_dynamic_shapes_are_hardly_covered(variants_dir: Path) -> None:
    taken, nodes = coverage(onnx.load(variants_dir / "graphs" / "layer_01.onnx"))[COREML_PROGRAM]
    assert nodes >= 30 and taken < 0.2 * nodes
    counted = open_package(variants_dir).manifest.component("layer_03").coverage["separate-fp32"][COREML_PROGRAM]
    assert counted == (taken, nodes)
    assert "export with --fixed-shape" in (variants_dir / "SUMMARY.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def int4_export(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> tuple[Path, ExportReport, Recorder]:
    """Layout separate in int4, which two texts allow for every part; onnxruntime's checker knows no int4 product."""
    folder = tmp_path_factory.mktemp("int4")
    (folder / "check.txt").write_text("\n".join(SENTENCES[:2]) + "\n", encoding="utf-8")
    options = ExportOptions(graphs=GraphOptions(precisions=("int4",)), check_file=folder / "check.txt")
    reporter = Recorder()
    report = export_package(checkpoint_dir, folder / "out", options, reporter=reporter)
    return folder / "out", report, reporter


def test_uncountable_parts_are_noted_once(int4_export: tuple[Path, ExportReport, Recorder]) -> None:
    _, report, reporter = int4_export
    assert report.quantization["separate-int4"].refused == {}
    (note,) = (note for note in reporter.notes if note.startswith("operator coverage"))
    assert note.startswith(UNCOUNTED) and len(note) > len(UNCOUNTED)


def test_uncountable_parts_in_package(int4_export: tuple[Path, ExportReport, Recorder]) -> None:
    package, _, _ = int4_export
    counted = {c.name: c.coverage["separate-int4"] for c in open_package(package).manifest.components}
    assert {name for name, found in counted.items() if not found} == {f"layer_0{layer}" for layer in (1, 2, 3, 4)}
    assert list(counted["exit_01"]) == [COREML_PROGRAM, COREML_NETWORK, NNAPI]
    summary = (package / "SUMMARY.md").read_text(encoding="utf-8")
    assert "| separate-int4 | layer_01 | not counted | not counted | not counted |" in summary
    assert len(SmartBert.load(package).classify(SENTENCES)) == len(SENTENCES)
