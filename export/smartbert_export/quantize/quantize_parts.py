"""Step 4 of an export: the parts in every precision; a quantized part that loses too much accuracy stays fp32."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from smartbert.activations.ranges import ActivationRanges
from smartbert_export.freed_memory import return_freed_memory
from smartbert_export.graphs.cut import CutParts
from smartbert_export.graphs.graph_files import PartGraph, VariantGraphs, save_graph
from smartbert_export.parts.signatures import LAYOUTS, Part, parts
from smartbert_export.precisions import FP32, PRECISIONS, STATIC, STATIC_CLIPPED, schemes
from smartbert_export.quantize.activation_scales import part_scales
from smartbert_export.quantize.agreement import Agreement, Candidates, QuantizationReport, check_quantized
from smartbert_export.quantize.check_texts import CheckTexts
from smartbert_export.quantize.quantized_graph import quantized
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.manifest import FUSED, SEPARATE, Variant
from smartbert_runtime.reporting import SILENT, Reporter


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
    check_texts: CheckTexts | None,
    ranges: ActivationRanges | None,
    *,
    target: str,
    ort_format: bool = False,
    reporter: Reporter = SILENT,
) -> QuantizedParts:
    """Write quantized graphs below `folder`/PRECISION; a variant in fp32 keeps the graphs of the cut.

    check_texts: texts that decide which parts may be quantized; needed when a variant is not fp32.
    ranges: of activations, for fixed scales; None: int8 computes a scale for each token.
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
        candidates = Candidates(
            folder / variant.precision,
            {part.name: schemes(part.role, variant.precision, ranges=ranges is not None) for part in chosen},
        )
        layout = SEPARATE if variant.layout == SEPARATE else FUSED
        name = f"{layout}-{variant.precision}"
        if name not in reports:
            assert check_texts is not None  # chosen by export_package for every precision but fp32
            _write_candidates(cut, candidates, chosen, variant.precision, ranges, target, ort_format, reporter)
            reports[name] = check_quantized(
                cut,
                candidates,
                chosen,
                check_texts,
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


def _write_candidates(
    cut: CutParts,
    candidates: Candidates,
    chosen: Sequence[Part],
    precision: str,
    ranges: ActivationRanges | None,
    target: str,
    ort_format: bool,
    reporter: Reporter,
) -> None:
    for part in chosen:
        for scheme in (scheme for rank in candidates.schemes[part.name] for scheme in rank):
            file = candidates.file(part.name, scheme)
            if file.exists():  # another layout has the part too
                continue
            reporter.step(f"quantizing {part.name} to {precision}, {scheme}")
            model = onnx.load(cut.file(part))
            scales = {}
            if ranges is not None and scheme in (STATIC, STATIC_CLIPPED):
                scales = part_scales(model.graph, part, ranges, scheme)
            save_graph(quantized(model, precision, target, scales=scales, ort_format=ort_format), file)


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
        reporter.note(f"{name} stays fp32 and not {report.precision}: {reason}: {report.alone[name].loss.mean:.2%}")


def _without_refused(
    variant: Variant, chosen: Sequence[Part], cut: CutParts, candidates: Candidates, report: QuantizationReport
) -> VariantGraphs:
    """Quantized graphs, fp32 ones of the parts that were refused."""
    graphs = []
    for part in chosen:
        scheme = report.schemes.get(part.name)
        if scheme is None:
            graphs.append(PartGraph(part=part, file=cut.file(part), precision=FP32))
        else:
            file = candidates.file(part.name, scheme)
            graphs.append(PartGraph(part=part, file=file, precision=variant.precision, scheme=scheme))
    return VariantGraphs(variant=variant, graphs=tuple(graphs))
