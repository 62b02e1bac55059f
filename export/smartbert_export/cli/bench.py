"""smartbert-bench: what deciding saves, measured on labelled texts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smartbert_runtime import SmartBert
from smartbert_runtime.bench import bench
from smartbert_runtime.classifier import DEFAULT_PRESET
from smartbert_runtime.cli.command import ReportFormat, Steps, run_command
from smartbert_runtime.errors import InputError
from smartbert_runtime.records import LABEL_COLUMN, Columns, read_examples
from smartbert_runtime.report import bench_json, bench_text
from smartbert_runtime.sessions import CPU


def run_bench(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package folder.")],
    file: Annotated[Path, typer.Option(help="Labelled texts: tsv, csv or jsonl.")],
    preset: Annotated[str, typer.Option(help="Policy of policy.json to measure.")] = DEFAULT_PRESET,
    repeats: Annotated[int, typer.Option(help="Passes over the texts; each text counts with its median.")] = 3,
    layout: Annotated[str | None, typer.Option(help="Layout to measure; default: the package's first.")] = None,
    precision: Annotated[str | None, typer.Option(help="Precision to measure; default: the package's first.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text; default: found by its name.")] = None,
    pair_column: Annotated[str | None, typer.Option(help="Column of the second text, for pairs.")] = None,
    label_column: Annotated[str, typer.Option(help="Column of the label.")] = LABEL_COLUMN,
    provider: Annotated[
        list[str], typer.Option(help="onnxruntime execution provider; repeat for an order of preference.")
    ] = [CPU],  # noqa: B006 - typer reads the default and never changes it
    threads: Annotated[int | None, typer.Option(help="Cores to use; default: all this process may use.")] = None,
    format: Annotated[ReportFormat, typer.Option(help="How to print the report.")] = ReportFormat.text,
    save: Annotated[Path | None, typer.Option(help="Also write the report to this file, as JSON.")] = None,
) -> None:
    """Measure accuracy, recall, depth and time per text, against the same package with skipping and exiting off.

    One text at a time, tokenizing included; both ways take turns on every text, so that a noisy machine disturbs
    both alike.

    Example: smartbert-bench out/ --file dev.tsv
    """
    if save is not None and (save.is_dir() or not save.parent.is_dir()):
        raise InputError(f"{save} cannot be written", hint="name a file in a folder that exists")
    model = SmartBert.load(package, layout=layout, precision=precision, providers=provider, threads=threads)
    columns = Columns(text=text_column, pair=pair_column, label=label_column)
    examples = read_examples(file, columns, labelled=True)
    with Steps() as steps:
        report = bench(model, examples, preset=preset, repeats=repeats, on_pass=steps.say)
    if save is not None:
        try:
            save.write_text(bench_json(report) + "\n", encoding="utf-8")
        except OSError as err:
            raise InputError(f"{save} cannot be written: {err.strerror}", hint="check its rights") from err
    print(bench_json(report) if format is ReportFormat.json else bench_text(report))


def main() -> None:
    """Entry point of the console script."""
    run_command(run_bench)
