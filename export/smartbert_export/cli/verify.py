"""smartbert-verify: check that a package still answers as PyTorch did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smartbert_runtime.cli.command import ReportFormat, TerminalReporter, require_extra, run_command
from smartbert_runtime.cli.reports import verify_json, verify_text
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ConfigError, ManifestError
from smartbert_runtime.package.manifest import Manifest, Variant
from smartbert_runtime.package.open import Package, open_package
from smartbert_runtime.parity.golden import Golden, read_golden
from smartbert_runtime.parity.verify import check_files, require_parity, verify
from smartbert_runtime.reporting import Reporter
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.text_files.columns import Columns


def run_verify(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package folder.")],
    against: Annotated[
        Path | None,
        typer.Option(metavar="CKPT", help="Compare with this checkpoint in PyTorch, not with the recorded answers."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="With --against: texts to compare on, instead of the golden ones.")
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Its column of the text; default: chosen by its name.")
    ] = None,
    pair_column: Annotated[str | None, typer.Option(help="Its column of the second text, for pairs.")] = None,
    part: Annotated[str | None, typer.Option(help="Check only this part, e.g. layer_03.")] = None,
    layout: Annotated[str | None, typer.Option(help="Check only variants of this layout; default: all.")] = None,
    precision: Annotated[str | None, typer.Option(help="Check only variants of this precision; default: all.")] = None,
    provider: Annotated[
        list[str], typer.Option(help="onnxruntime execution provider; repeat for an order of preference.")
    ] = [CPU],  # noqa: B006 - typer reads the default and never changes it
    threads: Annotated[int | None, typer.Option(help="Cores to use; default: all this process may use.")] = None,
    format: Annotated[ReportFormat, typer.Option(help="How to print the report.")] = ReportFormat.text,
) -> None:
    """Hash every file, then compare with PyTorch: each part on recorded inputs, then whole texts end to end.

    Every layout and precision of the folder is checked: fp32 must make the same decisions as PyTorch, int8 and int4
    must return the same labels. Needs no torch, except with --against. Exit code 3: a part differs, and the first is
    named; exit code 1: the folder is damaged.

    Example: smartbert-verify out/ --against ckpt/ --file dev.tsv
    """
    if file is not None and against is None:
        raise ConfigError("--file needs --against", hint="name the checkpoint, or leave out --file")
    opened = open_package(package)
    check_files(opened)
    variants = _variants(opened.manifest, layout, precision, part)
    policy = opened.manifest.golden.policy
    with TerminalReporter() as reporter:
        if against is None:
            golden, oracle = read_golden(opened), "the recorded PyTorch answers"
        else:
            columns = Columns(text=text_column, pair=pair_column)
            golden, oracle = _run_checkpoint(against, opened, file, policy, columns, reporter), "PyTorch"
        reports = []
        for variant in variants:
            sessions = Sessions(opened, variant, providers=provider, threads=threads)
            reports.append(verify(sessions, golden, policy, oracle=oracle, part=part, reporter=reporter))
    print(verify_json(reports) if format is ReportFormat.json else "\n".join(map(verify_text, reports)))
    for report in reports:
        require_parity(report)


def _run_checkpoint(
    checkpoint: Path, package: Package, file: Path | None, policy: Policy, columns: Columns, reporter: Reporter
) -> Golden:
    with require_extra("smartbert-verify --against", "export"):
        from smartbert.library_logging import quiet_libraries
        from smartbert_export.parity.against_checkpoint import record_checkpoint
    quiet_libraries()
    return record_checkpoint(checkpoint, package, file, policy, columns=columns, reporter=reporter)


def _variants(manifest: Manifest, layout: str | None, precision: str | None, part: str | None) -> list[Variant]:
    """The variants that the options select and that have the part; ManifestError when there is none."""
    manifest.variant(layout, precision)
    if part is not None:
        manifest.component(part)
    chosen = [v for v in manifest.variants if layout in (None, v.layout) and precision in (None, v.precision)]
    having = [v for v in chosen if part is None or v.name in manifest.component(part).files]
    if not having:
        raise ManifestError(
            f"{part} is in none of the variants {', '.join(v.name for v in chosen)}",
            hint="leave out --layout and --precision",
        )
    return having


def main() -> None:
    """Entry point of the console script."""
    run_command(run_verify)
