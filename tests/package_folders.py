"""Package folders in tests: exports of the tiny model in other shapes; reading a manifest, damaging a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_runtime.package.manifest import MANIFEST_FILE
from tests.helpers import refresh_hashes

Document = dict[str, Any]

LAYOUTS = ("separate", "fused", "single")
PRECISIONS = ("fp32", "int8")
VARIANTS = [f"{layout}-{precision}" for layout in LAYOUTS for precision in PRECISIONS]
FIXED_SHAPE = (2, 12)


def export_layouts(folder: Path, checkpoint: Path, check_file: Path) -> Path:
    """Every layout in fp32 and int8. check_file: few texts, because they decide what is quantized, one by one."""
    graphs = GraphOptions(layouts=LAYOUTS, precisions=PRECISIONS)
    export_package(checkpoint, folder, ExportOptions(graphs=graphs, check_file=check_file))
    return folder


def export_fixed(folder: Path, checkpoint: Path) -> Path:
    """Layouts separate and fused for batches of 2 texts of 12 tokens."""
    graphs = GraphOptions(layouts=("separate", "fused"), fixed_shape=FIXED_SHAPE)
    export_package(checkpoint, folder, ExportOptions(graphs=graphs))
    return folder


def export_fixed_single(folder: Path, checkpoint: Path) -> Path:
    """Layout single for one text of 12 tokens."""
    graphs = GraphOptions(layouts=("single",), fixed_shape=(1, FIXED_SHAPE[1]))
    export_package(checkpoint, folder, ExportOptions(graphs=graphs))
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
    """Change one byte and keep the size; a second call restores it."""
    content = bytearray(file.read_bytes())
    content[place] ^= 0xFF
    file.write_bytes(bytes(content))


def weights_of(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    """Those of the branches of `If`s, too."""
    bodies = [entry.g for node in graph.node for entry in node.attribute if entry.HasField("g")]
    return [*graph.initializer, *(tensor for body in bodies for tensor in weights_of(body))]


def scale_weight(folder: Path, part: str, weight: str, factor: float) -> None:
    """Multiply a weight where it lies in its graph's file, hashes refreshed."""
    file = folder / "graphs" / f"{part}.onnx"
    content = file.read_bytes()
    (found,) = (tensor for tensor in weights_of(onnx.load_model_from_string(content).graph) if tensor.name == weight)
    scaled = (np.frombuffer(found.raw_data, np.float32) * np.float32(factor)).tobytes()
    # With its name, which its bytes follow: the single graph has some values twice.
    before, after = (
        onnx.TensorProto(name=weight, raw_data=raw).SerializeToString() for raw in (found.raw_data, scaled)
    )
    assert content.count(before) == 1
    file.write_bytes(content.replace(before, after))
    refresh_hashes(folder)
