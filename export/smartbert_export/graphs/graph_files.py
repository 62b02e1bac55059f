"""Graphs on disk between the steps of an export: which file holds which part of which variant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from smartbert_export.parts.signatures import Part
from smartbert_runtime.package.manifest import Variant


@dataclass(frozen=True, kw_only=True)
class PartGraph:
    """One part's graph. precision: of this file; fp32 where a quantized variant keeps the part in fp32.

    scheme: how its numbers were quantized; empty in fp32.
    """

    part: Part
    file: Path
    precision: str
    scheme: str = ""


@dataclass(frozen=True, kw_only=True)
class VariantGraphs:
    """The graphs of one variant, in running order."""

    variant: Variant
    graphs: tuple[PartGraph, ...]


def save_graph(model: onnx.ModelProto, file: Path) -> None:
    """Write `model`; equal graphs give equal bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(model.SerializeToString(deterministic=True))
