"""smartbert-verify: does a package still answer as PyTorch did?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smartbert_runtime.cli.command import ReportFormat, Steps, require_extra, run_command
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.golden import read_golden
from smartbert_runtime.manifest import open_package
from smartbert_runtime.records import Columns
from smartbert_runtime.report import verify_json, verify_text
from smartbert_runtime.sessions import CPU, Sessions
from smartbert_runtime.verify import check_files, require_parity, verify


def run_verify(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package folder.")],
    against: Annotated[
        Path | None,
        typer.Option(metavar="CKPT", help="Compare with this checkpoint in PyTorch, not with the recorded answers."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="With --against: texts to compare on, in place of the golden ones.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Its column of the text; default: found by its name.")] = None,
    pair_column: Annotated[str | None, typer.Option(help="Its column of the second text, for pairs.")] = None,
    part: Annotated[str | None, typer.Option(help="Check only this part, e.g. layer_03.")] = None,
    provider: Annotated[
        list[str], typer.Option(help="onnxruntime execution provider; repeat for an order of preference.")
    ] = [CPU],  # noqa: B006 - typer reads the default and never changes it
    threads: Annotated[int | None, typer.Option(help="Cores to use; default: all this process may use.")] = None,
    format: Annotated[ReportFormat, typer.Option(help="How to print the report.")] = ReportFormat.text,
) -> None:
    """Hash every file, then replay PyTorch's answers: each part on recorded inputs, then whole texts end to end.

    Needs no torch, except with --against. Exit code 3 names the first part that differs, 1 a damaged folder.

    Example: smartbert-verify out/ --against ckpt/ --file dev.tsv
    """
    if file is not None and against is None:
        raise ConfigError("--file needs --against", hint="name the checkpoint, or leave out --file")
    opened = open_package(package)
    check_files(opened)
    sessions = Sessions(opened, opened.manifest.variant(), providers=provider, threads=threads)
    policy = opened.manifest.golden.policy
    columns = Columns(text=text_column, pair=pair_column)
    with Steps() as steps:
        if against is None:
            golden, oracle = read_golden(opened), "the recorded PyTorch answers"
        else:
            with require_extra("smartbert-verify --against", "export"):
                from smartbert.quiet import quiet_libraries
                from smartbert_export.oracle import ask_checkpoint
            quiet_libraries()
            golden, oracle = ask_checkpoint(against, opened, file, policy, columns=columns, say=steps.say), "PyTorch"
        report = verify(sessions, golden, policy, oracle=oracle, part=part, on_part=steps.say)
    print(verify_json(report) if format is ReportFormat.json else verify_text(report))
    require_parity(report)


def main() -> None:
    """Entry point of the console script."""
    run_command(run_verify)
