"""smartbert-inspect: show what a package folder contains."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smartbert_runtime.cli.command import ReportFormat, run_command
from smartbert_runtime.cli.reports import inspect_json, inspect_text
from smartbert_runtime.inspection import inspect_package
from smartbert_runtime.package.open import open_package
from smartbert_runtime.sessions.providers import CPU


def inspect(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package folder that smartbert-export wrote.")],
    ops: Annotated[
        bool,
        typer.Option(
            "--ops",
            help="Show operator coverage: how many nodes of each part run on which provider, here and on phones.",
        ),
    ] = False,
    provider: Annotated[
        list[str], typer.Option(help="With --ops: onnxruntime execution provider to load the parts on; repeatable.")
    ] = [CPU],  # noqa: B006 - typer reads the default and never changes it
    format: Annotated[ReportFormat, typer.Option(help="How to print the report.")] = ReportFormat.text,
) -> None:
    """Show a package's variants, parts, shapes, sizes, hashes and thresholds.

    Example: smartbert-inspect out/ --ops
    """
    found = inspect_package(open_package(package), providers=provider if ops else ())
    print(inspect_json(found) if format is ReportFormat.json else inspect_text(found, ops=ops))


def main() -> None:
    """Entry point of the console script."""
    run_command(inspect)
