"""Step 5 of an export: the graphs of each layout; for the layout `single`, its parts are joined in one graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from smartbert.configuration import SmartBertConfig
from smartbert_export.graphs.graph_files import PartGraph, VariantGraphs, save_graph
from smartbert_export.graphs.single_graph import single_model
from smartbert_export.parts.signatures import Part
from smartbert_export.precisions import FP32
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.manifest import SINGLE
from smartbert_runtime.package.part_names import MODEL
from smartbert_runtime.reporting import SILENT, Reporter


def assemble_layouts(
    variants: Sequence[VariantGraphs],
    folder: Path,
    config: SmartBertConfig,
    policy: Policy,
    *,
    fixed_shape: tuple[int, int] | None = None,
    reporter: Reporter = SILENT,
) -> tuple[VariantGraphs, ...]:
    """The same variants, those of the layout `single` with one graph, written into `folder`, instead of their parts.

    policy: its thresholds are those that a negative input of the single graph stands for.
    """
    return tuple(
        _join_parts(variant, folder, config, policy, fixed_shape, reporter)
        if variant.variant.layout == SINGLE
        else variant
        for variant in variants
    )


def _join_parts(
    parts: VariantGraphs,
    folder: Path,
    config: SmartBertConfig,
    policy: Policy,
    fixed_shape: tuple[int, int] | None,
    reporter: Reporter,
) -> VariantGraphs:
    precision = parts.variant.precision
    reporter.step(f"joining the parts in one graph ({precision})")
    files = {graph.part: graph.file for graph in parts.graphs}
    model = single_model(config, list(files), lambda part: onnx.load(files[part]), policy, fixed_shape)
    file = folder / precision / f"{MODEL}.onnx"
    save_graph(model, file)
    whole = Part(name=MODEL, role=MODEL, kind=MODEL, index=0)
    schemes = sorted({graph.scheme or FP32 for graph in parts.graphs}) if precision != FP32 else []
    graph = PartGraph(part=whole, file=file, precision=precision, scheme="; ".join(schemes))
    return VariantGraphs(variant=parts.variant, graphs=(graph,))
