"""Step 4 of an export: the parts in every precision; a quantized part that changes too many labels stays fp32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from smartbert_export.freed_memory import return_freed_memory
from smartbert_export.graphs.cut import CutParts
from smartbert_export.graphs.graph_files import PartGraph, VariantGraphs, save_graph
from smartbert_export.parts.signatures import LAYOUTS, Part, parts
from smartbert_export.quantize.agreement import Agreement, QuantizationReport, check_quantized
from smartbert_export.quantize.quantized_graph import FP32, PRECISIONS, quantized
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.manifest import FUSED, SEPARATE, Variant
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.tokenizer import Tokens


@dataclass(frozen=True, kw_only=True)
class QuantizedParts:
    """Every variant with the graphs of its parts, fp32 before int8 before int4.

    reports: what was compared and refused, by `separate-int8`, `fused-int8` (also for `single`, of the same parts) ...
    """

    variants: tuple[VariantGraphs, ...]
    reports: Mapping[str, QuantizationReport]


def quantize_parts(
    cut: CutParts,
    folder: Path,
    variants: Sequence[Variant],
    policy: Policy,
    check_tokens: Tokens | None,
    *,
    target: str,
    ort_format: bool = False,
    reporter: Reporter = SILENT,
) -> QuantizedParts:
    """Write quantized graphs into `folder`/PRECISION; a variant in fp32 keeps the graphs of the cut.

    check_tokens: texts that decide which parts may be quantized; needed when a variant is not fp32.
    target, ort_format: as for `quantized`.
    """
    results = []
    reports: dict[str, QuantizationReport] = {}
    for variant in sorted(variants, key=lambda v: (PRECISIONS.index(v.precision), LAYOUTS.index(v.layout))):
        chosen = list(parts(cut.config, variant.layout))
        if variant.precision == FP32:
            graphs = [PartGraph(part=part, file=cut.file(part), precision=FP32) for part in chosen]
            results.append(VariantGraphs(variant=variant, graphs=tuple(graphs)))
            continue
        candidates = folder / variant.precision
        layout = SEPARATE if variant.layout == SEPARATE else FUSED
        name = f"{layout}-{variant.precision}"
        if name not in reports:
            assert check_tokens is not None  # chosen by export_package for every precision but fp32
            _write_quantized(cut, candidates, chosen, variant.precision, target, ort_format, reporter)
            reports[name] = check_quantized(
                cut,
                candidates,
                chosen,
                check_tokens,
                policy,
                precision=variant.precision,
                fused=layout == FUSED,
                known=_known_agreement(reports.values(), variant.precision, chosen),
                reporter=reporter,
            )
            return_freed_memory()  # the weights of the sessions that compared them
            _note_refused(reports[name], reporter)
        results.append(_without_refused(variant, chosen, cut, candidates, reports[name]))
    return QuantizedParts(variants=tuple(results), reports=reports)


def _write_quantized(
    cut: CutParts,
    candidates: Path,
    chosen: Sequence[Part],
    precision: str,
    target: str,
    ort_format: bool,
    reporter: Reporter,
) -> None:
    for part in chosen:
        file = candidates / f"{part.name}.onnx"
        if not file.exists():  # another layout may have the part too
            reporter.step(f"quantizing {part.name} to {precision}")
            save_graph(quantized(onnx.load(cut.file(part)), precision, target, ort_format=ort_format), file)


def _known_agreement(
    reports: Iterable[QuantizationReport], precision: str, chosen: Sequence[Part]
) -> dict[str, Agreement]:
    """Of parts that another layout has too, in the same precision."""
    names = {part.name for part in chosen}
    return {
        name: agreement
        for report in reports
        if report.precision == precision
        for name, agreement in report.alone.items()
        if name in names
    }


def _note_refused(report: QuantizationReport, reporter: Reporter) -> None:
    for name, reason in report.refused.items():
        share = report.alone[name].labels
        reporter.note(f"{name} stays fp32: in {report.precision} {reason}: {share:.2%} of the labels as in fp32")


def _without_refused(
    variant: Variant, chosen: Sequence[Part], cut: CutParts, candidates: Path, report: QuantizationReport
) -> VariantGraphs:
    """Quantized graphs, fp32 ones of the parts that were refused."""
    graphs = []
    for part in chosen:
        if part.name in report.refused:
            graphs.append(PartGraph(part=part, file=cut.file(part), precision=FP32))
        else:
            graphs.append(PartGraph(part=part, file=candidates / f"{part.name}.onnx", precision=variant.precision))
    return VariantGraphs(variant=variant, graphs=tuple(graphs))
