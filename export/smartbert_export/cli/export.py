"""smartbert-export: turn a checkpoint folder into a package folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smartbert_runtime.cli.command import TerminalReporter, choices, require_extra, run_command
from smartbert_runtime.errors import ConfigError

if TYPE_CHECKING:
    from smartbert_export.package import ExportReport


_ADVANCED = "Advanced"


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="smartbert-train's, or a plain classifier's.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Package folder to write.")],
    golden_file: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_ADVANCED,
            help="Texts whose PyTorch answers are recorded in the package, instead of the checkpoint's 32 dev texts.",
        ),
    ] = None,
    golden_texts: Annotated[
        bool,
        typer.Option(
            "--golden-texts/--no-golden-texts",
            rich_help_panel=_ADVANCED,
            help="Include those texts, or their token ids only.",
        ),
    ] = True,
    gates: Annotated[
        bool,
        typer.Option(
            "--gates/--no-gates",
            rich_help_panel=_ADVANCED,
            help="Export the skipping gates, or leave them out: smaller and faster where they hardly skip any layers.",
        ),
    ] = True,
    layout: Annotated[
        list[str],
        typer.Option(
            metavar=choices("separate", "fused", "single"),
            help="separate: one graph per layer, gate and exit head. fused: blocks of a layer, its exit head and the "
            "next gate. single: one model.onnx for any onnxruntime binding, one text per call. Repeatable, for "
            "several in one folder; the first is the default.",
        ),
    ] = ["separate"],  # noqa: B006 - typer reads the default and never changes it
    precision: Annotated[
        list[str],
        typer.Option(
            metavar=choices("fp32", "int8", "int4"),
            help="fp32, int8 (a quarter of the size, faster) or int4 (even smaller, not faster); repeatable. A part "
            "that loses too much accuracy stays fp32, as SUMMARY.md reports.",
        ),
    ] = ["fp32"],  # noqa: B006
    target: Annotated[
        str,
        typer.Option(
            metavar=choices("x86", "x86-vnni", "arm64"),
            rich_help_panel=_ADVANCED,
            help="Processor for int8: x86 (7-bit weights, correct on every one), x86-vnni or arm64 (8 bits).",
        ),
    ] = "x86",
    check_file: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_ADVANCED,
            help="500 or more texts, labeled if possible, on which quantized parts are judged; default: those that "
            "smartbert-train --keep-texts kept, or texts made from the golden ones.",
        ),
    ] = None,
    scales_file: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_ADVANCED,
            help="256 or more texts from which int8's activation scales are chosen; default: what training recorded. "
            "Without either, int8 computes a scale for each token, which is slower.",
        ),
    ] = None,
    fixed_shape: Annotated[
        str | None,
        typer.Option(
            metavar="B,S",
            rich_help_panel=_ADVANCED,
            help="Export every graph for batches of B texts of S tokens, as accelerators require; the runtime pads "
            "and splits batches and cuts longer texts.",
        ),
    ] = None,
    ort_format: Annotated[
        bool,
        typer.Option(
            "--ort-format",
            rich_help_panel=_ADVANCED,
            help="Write .ort files, and the list of operators for a reduced onnxruntime build.",
        ),
    ] = False,
    license: Annotated[
        str | None, typer.Option(help="License of the package, such as apache-2.0, for SUMMARY.md.")
    ] = None,
    opset: Annotated[
        int, typer.Option(rich_help_panel=_ADVANCED, help="ONNX operator set of the graphs: 18 to 21.")
    ] = 18,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Cut a checkpoint into ONNX parts: embeddings, and a gate, a layer and an exit head for each layer.

    Checkpoints without gates (the arms deebert and pabee) and plain fine-tuned classifiers (BERT, RoBERTa) are
    exported with fewer parts: the former skip no layer, the latter run every layer.

    Every part and every decision is compared with PyTorch before OUT is written; if one differs, nothing is written
    and the exit code is 3. Two exports of one checkpoint are byte-equal.

    Example: smartbert-export ckpt/ out/ --layout fused --precision fp32 --precision int8
    """
    with require_extra("smartbert-export", "export"):
        from smartbert.library_logging import quiet_libraries
        from smartbert_export.options import ExportOptions, GraphOptions
        from smartbert_export.package import export_package
    quiet_libraries()
    started = time.perf_counter()
    graphs = GraphOptions(
        layouts=tuple(layout),
        precisions=tuple(precision),
        fixed_shape=_shape(fixed_shape),
        ort_format=ort_format,
        target=target,
        opset=opset,
    )
    options = ExportOptions(
        graphs=graphs,
        golden_file=golden_file,
        golden_texts=golden_texts,
        gates=gates,
        check_file=check_file,
        scales_file=scales_file,
        license=license,
        overwrite=overwrite,
    )
    with TerminalReporter() as reporter:
        report = export_package(checkpoint, output, options, reporter=reporter)
    _print_report(report, output, seconds=time.perf_counter() - started)


def _print_report(report: ExportReport, output: Path, *, seconds: float) -> None:
    from smartbert_export.summary import abilities, export_lines

    size_mb = sum(file.stat().st_size for file in output.rglob("*") if file.is_file()) / 1e6
    print(f"package  {output}: {size_mb:.1f} MB, {seconds:.1f} s")
    print(f"model    {abilities(report.model)}")
    print("\n".join(export_lines(report.parity, report.quantization, report.skipped, report.model.hidden_size)))
    print(f'next     smartbert-infer {output} --text "..."')


def _shape(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        batch, tokens = map(int, text.split(","))
    except ValueError as err:
        raise ConfigError(f"--fixed-shape takes two numbers, not {text!r}", hint="such as --fixed-shape 1,64") from err
    return batch, tokens


def main() -> None:
    """Entry point of the console script."""
    run_command(export)
