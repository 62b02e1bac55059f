"""The export as a pipeline: open, record, cut, quantize, assemble, write, verify. Each step returns what it made."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from smartbert.atomic_folder import atomic_folder, check_target
from smartbert_export.graphs.assemble import assemble_layouts
from smartbert_export.graphs.coverage import count_coverage
from smartbert_export.graphs.cut import cut_parts
from smartbert_export.options import ExportOptions
from smartbert_export.parity.golden_samples import read_golden_texts, record_golden
from smartbert_export.parity.same_as_checkpoint import check_same_as_checkpoint
from smartbert_export.parity.verify_package import verify_package
from smartbert_export.precisions import FP32, INT8
from smartbert_export.quantize.agreement import QuantizationReport
from smartbert_export.quantize.check_texts import choose_check_texts
from smartbert_export.quantize.choose_ranges import choose_ranges
from smartbert_export.quantize.quantize_parts import quantize_parts
from smartbert_export.source_checkpoint import open_checkpoint
from smartbert_export.stages import Stages
from smartbert_export.summary import summary_text
from smartbert_export.write_package import write_package
from smartbert_runtime.errors import InputError
from smartbert_runtime.package.manifest import ModelFacts
from smartbert_runtime.parity.verify import VerifyReport
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.text_files.columns import check_pairs
from smartbert_runtime.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was exported: parity of every variant, which parts were quantized, and what the model can decide.

    skipped: share of the layers that the golden texts reach and their gates skip; None without gates.
    """

    parity: tuple[VerifyReport, ...]
    quantization: Mapping[str, QuantizationReport]
    model: ModelFacts
    skipped: float | None


def export_package(
    checkpoint: Path | str,
    output: Path | str,
    options: ExportOptions | None = None,
    *,
    reporter: Reporter = SILENT,
) -> ExportReport:
    """Export `checkpoint` to the package folder `output`, whole or not at all.

    Raises ConfigError for a fixed shape longer than the model, ExportError for a checkpoint that cannot be cut,
    ParityError (nothing is written) when a part or a decision differs from PyTorch's.
    """
    options, checkpoint, output = options or ExportOptions(), Path(checkpoint), Path(output)
    graphs = options.graphs
    if checkpoint.resolve().is_relative_to(output.resolve()):
        raise InputError(f"{output} holds the checkpoint itself", hint="name another folder for the package")
    check_target(output, overwrite=options.overwrite)

    stages = Stages(reporter)
    stages.begin()
    source = open_checkpoint(checkpoint, gates=options.gates)
    if not (options.gates or source.gates_left_out):
        reporter.note("this checkpoint has no gates to leave out")
    config, policy = source.model.config, source.policy()
    settings = source.tokenizer_settings(graphs.max_length(config.max_input_length))
    tokenizer = Tokenizer(source.tokenizer_json, settings)
    texts = read_golden_texts(checkpoint, options.golden_file)
    check_pairs(source.text_pairs, texts.pairs is not None, texts.source)
    check_same_as_checkpoint(source, tokenizer, texts.texts, texts.pairs, reporter=stages.begin())
    check_texts = ranges = None
    if graphs.precisions != (FP32,):
        check_texts = choose_check_texts(
            checkpoint, options.check_file, texts.texts, texts.pairs, source.labels, tokenizer, reporter=reporter
        )
    if INT8 in graphs.precisions:
        ranges = choose_ranges(source, options.scales_file, tokenizer, policy, reporter=stages)

    with atomic_folder(output, overwrite=options.overwrite) as staging:
        work = staging / "work"
        golden = record_golden(
            source.model,
            tokenizer,
            texts.texts,
            texts.pairs,
            policy,
            ship_texts=options.golden_texts,
            reporter=stages.begin(),
        )
        # A small machine has room for the weights once: from here on they are in the graphs only.
        cut = cut_parts(
            source.model,
            work / FP32,
            graphs.layouts,
            fixed_shape=graphs.fixed_shape,
            opset=graphs.opset,
            release_weights=True,
            reporter=stages.begin(),
        )
        quantized = quantize_parts(
            cut,
            work,
            graphs.variants(),
            policy,
            check_texts,
            ranges,
            target=graphs.target,
            ort_format=graphs.ort_format,
            reporter=stages.begin(),
        )
        variants = assemble_layouts(
            quantized.variants, work, config, policy, fixed_shape=graphs.fixed_shape, reporter=stages.begin()
        )
        coverage = count_coverage(variants, reporter=stages)
        manifest = write_package(
            staging, source, golden, variants, coverage, settings, policy, options, reporter=stages.begin()
        )
        shutil.rmtree(work)
        parity = verify_package(staging, golden.with_wide_probes(), policy, reporter=stages.begin())
        summary = summary_text(
            manifest,
            policy,
            parity,
            quantized.reports,
            source.training,
            options.license,
            gates_left_out=source.gates_left_out,
        )
        (staging / "SUMMARY.md").write_text(summary, encoding="utf-8")
    return ExportReport(
        parity=parity,
        quantization=quantized.reports,
        model=manifest.model,
        skipped=golden.skipped_share() if manifest.model.gates else None,
    )
