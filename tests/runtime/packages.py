"""Package folders: other exports of the tiny model, and plain JSON and bytes for tests that damage them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_runtime.package.manifest import MANIFEST_FILE
from tests.conftest import SENTENCES
from tests.helpers import refresh_hashes

Document = dict[str, Any]

LAYOUTS = ("separate", "fused", "single")
PRECISIONS = ("fp32", "int8")
VARIANTS = [f"{layout}-{precision}" for layout in LAYOUTS for precision in PRECISIONS]
FIXED_SHAPE = (2, 12)


def export_layouts(base: Path, checkpoint: Path) -> Path:
    """One folder with every layout in fp32 and int8, made at the first call in this session; read only."""
    file = base / "check.txt"
    file.write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    graphs = GraphOptions(layouts=LAYOUTS, precisions=PRECISIONS)
    # The sentences decide what is quantized: few texts, so that it takes a second.
    return _export_once(base / "layouts", checkpoint, ExportOptions(graphs=graphs, check_file=file))


def export_fixed(base: Path, checkpoint: Path) -> Path:
    """Layouts separate and fused for batches of 2 texts of 12 tokens, made at the first call; read only."""
    graphs = GraphOptions(layouts=("separate", "fused"), fixed_shape=FIXED_SHAPE)
    return _export_once(base / "fixed", checkpoint, ExportOptions(graphs=graphs))


def export_fixed_single(base: Path, checkpoint: Path) -> Path:
    """Layout single for one text of 12 tokens, made at the first call; read only."""
    graphs = GraphOptions(layouts=("single",), fixed_shape=(1, FIXED_SHAPE[1]))
    return _export_once(base / "fixed_single", checkpoint, ExportOptions(graphs=graphs))


def _export_once(folder: Path, checkpoint: Path, options: ExportOptions) -> Path:
    if not folder.exists():  # an export appears whole or not at all
        export_package(checkpoint, folder, options)
    return folder


def read_manifest(folder: Path) -> Document:
    """manifest.json as plain JSON."""
    document: Document = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    return document


def first_component(document: Document) -> Document:
    """The first part's entry."""
    component: Document = document["components"][0]
    return component


def first_file(document: Document) -> Document:
    """The first part's file entry: file, sha256, bytes."""
    entry: Document = next(iter(first_component(document)["files"].values()))
    return entry


def flip_byte(file: Path, place: int) -> None:
    """Change one byte and keep the size; doing it twice changes nothing."""
    content = bytearray(file.read_bytes())
    content[place] ^= 0xFF
    file.write_bytes(bytes(content))


def scale_weight(folder: Path, part: str, weight: str, factor: float) -> None:
    """Multiply a weight where it lies in its graph's file, hashes refreshed."""
    file = folder / "graphs" / f"{part}.onnx"
    content = file.read_bytes()
    graph = onnx.load_model_from_string(content).graph
    (found,) = (initializer for initializer in graph.initializer if initializer.name == weight)
    scaled = (np.frombuffer(found.raw_data, np.float32) * np.float32(factor)).tobytes()
    # With its name, which its bytes follow: the single graph has some weights twice.
    before, after = (
        onnx.TensorProto(name=weight, raw_data=raw).SerializeToString() for raw in (found.raw_data, scaled)
    )
    assert content.count(before) == 1
    file.write_bytes(content.replace(before, after))
    refresh_hashes(folder)
