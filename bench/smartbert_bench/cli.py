"""smartbert-bench: a package measured beside full depth, one plain graph and optimum, in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from smartbert_bench.contenders.contender import Contender
from smartbert_bench.contenders.package_variants import choose_variants, package_contenders
from smartbert_bench.render import bench_json, bench_text
from smartbert_bench.report import BenchReport
from smartbert_bench.run import run_bench
from smartbert_bench.settings import BenchSettings
from smartbert_bench.texts import check_labels, first_texts
from smartbert_runtime.classifier import DEFAULT_PRESET
from smartbert_runtime.cli.command import (
    ReportFormat,
    TerminalReporter,
    check_picture_file,
    choices,
    require_extra,
    run_command,
)
from smartbert_runtime.cli.file_options import INPUT_FORMAT_HELP, LABELED_FILE_HELP, TEXT_COLUMN_HELP
from smartbert_runtime.errors import ConfigError, InputError
from smartbert_runtime.package.manifest import FUSED, SEPARATE, SINGLE, Variant
from smartbert_runtime.package.open import Package, open_package
from smartbert_runtime.reporting import Reporter
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.threads import available_threads
from smartbert_runtime.text_files.columns import LABEL_COLUMN, Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.text_files.formats import FORMATS


class Against(StrEnum):
    """Rivals that are made of the package itself."""

    plain = "plain"


def bench(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package folder.")],
    file: Annotated[Path, typer.Option(help=LABELED_FILE_HELP)],
    against: Annotated[
        list[Against], typer.Option(help="Also measure: plain, the same weights as one plain ONNX graph.")
    ] = [],  # noqa: B006 - typer reads the default and never changes it
    plain_checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="CKPT",
            help="Also measure this plainly fine-tuned checkpoint (smartbert-train --arm plain --pooling first) as "
            "optimum-onnx exports it, in fp32 and int8.",
        ),
    ] = None,
    layout: Annotated[
        list[str],
        typer.Option(metavar=choices(SEPARATE, FUSED, SINGLE), help="Layouts to measure; repeatable; default: all."),
    ] = [],  # noqa: B006
    precision: Annotated[
        list[str],
        typer.Option(metavar=choices("fp32", "int8", "int4"), help="Precisions to measure; repeatable; default: all."),
    ] = [],  # noqa: B006
    preset: Annotated[str, typer.Option(help="Policy of policy.json to measure.")] = DEFAULT_PRESET,
    repeats: Annotated[int, typer.Option(help="Passes over the texts; each text counts with its median.")] = 3,
    batch_sizes: Annotated[
        str, typer.Option(metavar="N,N,...", help="Batch sizes to measure besides one text at a time; empty for none.")
    ] = "8,32,128",
    starts: Annotated[int, typer.Option(help="Fresh processes per contender, for start-up times; 0 skips them.")] = 3,
    max_texts: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Use only the first N texts of the file.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help=TEXT_COLUMN_HELP)] = None,
    pair_column: Annotated[str | None, typer.Option(help="Column of the second text, for pairs.")] = None,
    label_column: Annotated[str, typer.Option(help="Column of the label.")] = LABEL_COLUMN,
    input_format: Annotated[str | None, typer.Option(metavar=choices(*FORMATS), help=INPUT_FORMAT_HELP)] = None,
    provider: Annotated[
        list[str], typer.Option(help="onnxruntime execution provider; repeat for an order of preference.")
    ] = [CPU],  # noqa: B006
    threads: Annotated[int | None, typer.Option(help="Cores to use; default: all this process may use.")] = None,
    format: Annotated[ReportFormat, typer.Option(help="How to print the report.")] = ReportFormat.text,
    save: Annotated[Path | None, typer.Option(help="Also write the report to this file, as JSON.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw accuracy against time into this PNG or SVG file.")
    ] = None,
) -> None:
    """Measure accuracy, depth, time, throughput, start-up, memory and size of a package, and of its rivals.

    Every variant of the package is measured with its policy and at full depth. Each contender has its own process; all
    take turns in one run, on the same texts with the same threads, tokenizing included, and those that are not running
    are stopped. Ratios are speed-ups, with their spread over the passes.

    Example: smartbert-bench out/ --file dev.tsv --against plain --plain-checkpoint plain-ckpt/
    """
    _check_targets(save, plot)
    settings = BenchSettings(
        preset=preset,
        providers=tuple(provider),
        threads=available_threads() if threads is None else threads,
        repeats=repeats,
        batch_sizes=_sizes(batch_sizes),
        starts=starts,
    )
    opened = open_package(package)
    variants = choose_variants(opened.manifest, layout, precision)
    columns = Columns(text=text_column, pair=pair_column, label=label_column)
    examples = first_texts(read_examples(file, columns, labeled=True, input_format=input_format), max_texts)
    check_labels(opened.manifest, examples)
    with TerminalReporter() as reporter, tempfile.TemporaryDirectory(prefix="smartbert-bench-") as folder:
        contenders = package_contenders(opened, variants, settings)
        contenders += _rivals(opened, variants, settings, bool(against), plain_checkpoint, Path(folder), reporter)
        report = run_bench(opened, contenders, examples, settings, reporter=reporter)
    _write(report, save, plot)
    print(bench_json(report) if format is ReportFormat.json else bench_text(report))


def _rivals(
    package: Package,
    variants: Sequence[Variant],
    settings: BenchSettings,
    plain: bool,
    checkpoint: Path | None,
    folder: Path,
    reporter: Reporter,
) -> list[Contender]:
    """The rivals that the options name, their graphs written into `folder`; MissingExtraError for missing packages."""
    rivals: list[Contender] = []
    if plain:
        with require_extra("smartbert-bench --against plain", "export"):
            from smartbert_bench.contenders.plain_graph import plain_contenders
        reporter.step("putting the package's parts together into one plain graph")
        rivals += plain_contenders(package, variants, settings, folder)
    if checkpoint is not None:
        with require_extra("smartbert-bench --plain-checkpoint", "incumbent"):
            from smartbert.library_logging import quiet_libraries
            from smartbert_bench.contenders.optimum import optimum_contenders
        quiet_libraries()
        reporter.step("exporting the plain checkpoint with optimum")
        rivals += optimum_contenders(checkpoint, package, settings, folder)
    return rivals


def _sizes(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(size) for size in text.split(",")) if text.strip() else ()
    except ValueError as err:
        raise ConfigError(f"{text!r} is not a list of batch sizes", hint="like --batch-sizes 8,32,128") from err


def _check_targets(save: Path | None, plot: Path | None) -> None:
    """Refuse files that cannot be written before minutes are spent on measuring."""
    if save is not None and (save.is_dir() or not save.absolute().parent.is_dir()):
        raise InputError(f"{save} cannot be written", hint="name a file in a folder that exists")
    if plot is None:
        return
    with require_extra("smartbert-bench --plot", "bench"):
        import smartbert_bench.plot  # noqa: F401 - checked now, used at the end
    check_picture_file(plot)


def _write(report: BenchReport, save: Path | None, plot: Path | None) -> None:
    if save is not None:
        try:
            save.write_text(bench_json(report) + "\n", encoding="utf-8")
        except OSError as err:
            raise InputError(f"{save} cannot be written: {err.strerror}", hint="check its permissions") from err
    if plot is not None:
        from smartbert_bench.plot import plot_bench

        plot_bench(report, plot)


def main() -> None:
    """Entry point of the console script."""
    run_command(bench)
