"""smartbert-export: checkpoint folder to package folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from smartbert_runtime.cli.command import Steps, require_extra, run_command


def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint folder that smartbert-train wrote.")],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Package folder to write.")],
    golden_file: Annotated[
        Path | None,
        typer.Option(help="Texts whose PyTorch answers travel with the package, in place of 32 dev texts."),
    ] = None,
    golden_texts: Annotated[
        bool,
        typer.Option("--golden-texts/--no-golden-texts", help="Ship those texts, or their token ids only."),
    ] = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Cut a checkpoint into ONNX parts: embeddings, and a gate, a layer and an exit head for each layer.

    Every part and every decision is compared with PyTorch before OUT appears; when one differs, nothing is written
    and the exit code is 3. Two exports of one checkpoint are byte-equal.

    Example: smartbert-export ckpt/ out/
    """
    with require_extra("smartbert-export", "export"):
        from smartbert.quiet import quiet_libraries
        from smartbert_export.package import ExportOptions, export_package
    quiet_libraries()
    started = time.perf_counter()
    options = ExportOptions(golden_file=golden_file, golden_texts=golden_texts, overwrite=overwrite)
    with Steps() as steps:
        report = export_package(checkpoint, output, options, say=steps.say)
    size_mb = sum(file.stat().st_size for file in output.rglob("*") if file.is_file()) / 1e6
    print(f"package  {output}: {len(report.parts)} parts, {size_mb:.1f} MB, {time.perf_counter() - started:.1f} s")
    worst = max(report.parts, key=lambda check: check.difference.max_abs)
    print(f"parity   worst part {worst.part}: {worst.difference.max_abs:.1e} from PyTorch; all decisions equal")
    print(f'next     smartbert-infer {output} --text "..."')


def main() -> None:
    """Entry point of the console script."""
    run_command(export)
