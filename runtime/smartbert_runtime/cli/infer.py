"""smartbert-infer: classify texts, and show which layers each text ran."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from smartbert_runtime.chrome_trace import chrome_trace
from smartbert_runtime.classifier import DEFAULT_BATCH_SIZE, DEFAULT_PRESET, SmartBert
from smartbert_runtime.classify_file import FilePredictions
from smartbert_runtime.cli.command import TerminalReporter, choices, run_command
from smartbert_runtime.cli.file_options import INPUT_FORMAT_HELP, TEXT_COLUMN_HELP
from smartbert_runtime.cli.print_predictions import Format, print_predictions
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.decisions.rules import RULES
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.reporting import Reporter
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.threads import share_thread_pool
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.formats import FORMATS

FILE_HELP = (
    "Texts from a txt, csv, tsv, jsonl, json or parquet file, .gz too, checked as a whole before the first answer; - "
    "reads standard input; the lines of a pipe are answered as they arrive."
)
# Panels of the help: what most people need stands above them.
_POLICY, _RUNNING, _LOOKING = "How far a text travels (advanced)", "How it is computed (advanced)", "Looking inside"


def infer(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package folder that smartbert-export wrote.")],
    text: Annotated[list[str], typer.Option(help="A text to classify; repeatable.")] = [],  # noqa: B006
    text_pair: Annotated[list[str], typer.Option(help="The second text of each --text, for pairs.")] = [],  # noqa: B006
    file: Annotated[Path | None, typer.Option(help=FILE_HELP)] = None,
    text_column: Annotated[str | None, typer.Option(help=TEXT_COLUMN_HELP)] = None,
    pair_column: Annotated[str | None, typer.Option(help="Column of the second text, for pairs.")] = None,
    input_format: Annotated[str | None, typer.Option(metavar=choices(*FORMATS), help=INPUT_FORMAT_HELP)] = None,
    skip_bad_lines: Annotated[
        bool,
        typer.Option(
            "--skip-bad-lines",
            help="Skip the lines of --file that cannot be used and name them on stderr; `index` counts them too, so "
            "that answers can be joined with lines; blank lines of jsonl, csv and tsv do not count.",
        ),
    ] = False,
    format: Annotated[Format, typer.Option(help="How to print the answers.")] = Format.text,
    preset: Annotated[str, typer.Option(help="Named policy of the package's policy.json.")] = DEFAULT_PRESET,
    precision: Annotated[
        str | None, typer.Option(metavar=choices("fp32", "int8", "int4"), help="Default: the package's first.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(metavar=choices("separate", "fused", "single"), help="Default: the package's first.")
    ] = None,
    deadline_ms: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_POLICY,
            help="Answer after this many milliseconds with the last head run, at most one layer late; per batch, "
            "so use --batch-size 1 for a deadline per text.",
        ),
    ] = None,
    max_layers: Annotated[
        int | None, typer.Option(rich_help_panel=_POLICY, help="Run at most this many layers per text.")
    ] = None,
    no_exit: Annotated[
        bool, typer.Option("--no-exit", rich_help_panel=_POLICY, help="Answer only after the last layer.")
    ] = False,
    no_skip: Annotated[bool, typer.Option("--no-skip", rich_help_panel=_POLICY, help="Skip no layer.")] = False,
    exit_threshold: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_POLICY,
            help="Exit at an uncertainty below this, 0 (never) to 1; by default normalized entropy.",
        ),
    ] = None,
    exit_thresholds: Annotated[
        str | None,
        typer.Option(
            metavar="T1,T2,...", rich_help_panel=_POLICY, help="One exit threshold per layer, instead of one for all."
        ),
    ] = None,
    skip_threshold: Annotated[
        float | None,
        typer.Option(rich_help_panel=_POLICY, help="Skip a layer at this skip probability or above, 0 to 1."),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            metavar=choices(*RULES),
            rich_help_panel=_POLICY,
            help="When a text exits: entropy or max-probability (uncertainty below the threshold), patience (heads in "
            "a row with the same label) or confident-patience (confident heads in a row).",
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(rich_help_panel=_POLICY, help="How many heads in a row, for the two patience rules.")
    ] = None,
    batch_size: Annotated[
        int,
        typer.Option(
            rich_help_panel=_RUNNING, help="Texts computed together; changes no answer, except with --deadline-ms."
        ),
    ] = DEFAULT_BATCH_SIZE,
    truncate: Annotated[
        bool,
        typer.Option(
            "--truncate/--no-truncate",
            rich_help_panel=_RUNNING,
            help="Cut texts longer than the model's input, or refuse them.",
        ),
    ] = True,
    threads: Annotated[
        int | None, typer.Option(rich_help_panel=_RUNNING, help="Cores to use; default: all this process may use.")
    ] = None,
    provider: Annotated[
        list[str],
        typer.Option(
            rich_help_panel=_RUNNING, help="onnxruntime execution provider; repeat for an order of preference."
        ),
    ] = [CPU],  # noqa: B006
    preload: Annotated[
        bool,
        typer.Option(
            "--preload", rich_help_panel=_RUNNING, help="Load every part at the start, so that no text waits for one."
        ),
    ] = False,
    trace: Annotated[
        bool,
        typer.Option(
            "--trace",
            rich_help_panel=_LOOKING,
            help="Show on stderr what gates and exit heads returned, and how long the parts took.",
        ),
    ] = False,
    trace_file: Annotated[
        Path | None,
        typer.Option(
            rich_help_panel=_LOOKING,
            help="Write when each part ran, as JSON for chrome://tracing or ui.perfetto.dev.",
        ),
    ] = None,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", rich_help_panel=_LOOKING, help="Show on stderr which provider runs which part."),
    ] = False,
) -> None:
    """Classify texts; each text runs only the layers it needs.

    Answers go to stdout, notes to stderr.

    Example: smartbert-infer out/ \\
    --text "WINNER!! Claim your 900 pound prize reward, call 09061701461. Valid 12 hours"
    """
    columns = Columns(text=text_column, pair=pair_column)
    source = _Source(text, text_pair, file, columns, skip_bad_lines, input_format)
    share_thread_pool(threads)  # nothing else runs in this process
    model = SmartBert.load(
        package, layout=layout, precision=precision, providers=provider, threads=threads, preload=preload
    )
    policy = _policy(
        model.policy(preset),
        rule=rule,
        exit_threshold=exit_threshold,
        exit_thresholds=_thresholds(exit_thresholds),
        patience=patience,
        skip_threshold=skip_threshold,
        no_skip=no_skip or None,
        no_exit=no_exit or None,
        max_layers=max_layers,
        deadline_ms=deadline_ms,
    )
    layers = model.package.manifest.model.layers
    with TerminalReporter() as reporter, nullcontext() if trace_file is None else chrome_trace(trace_file) as chrome:
        with _classify(model, source, policy, batch_size, truncate, reporter) as predictions:
            print_predictions(predictions, format, reporter, layers=layers, trace=trace, chrome=chrome)
        if verbose:
            _print_placements(model)
        for note in model.package.notes:
            reporter.note(note)


@dataclass(frozen=True)
class _Source:
    """Where the texts come from: --text with --text-pair, or --file with its columns."""

    texts: list[str]
    pairs: list[str]
    file: Path | None
    columns: Columns
    skip_bad_lines: bool
    input_format: str | None

    def __post_init__(self) -> None:
        if bool(self.texts) == (self.file is not None):
            raise ConfigError("give texts with --text, or with --file", hint='smartbert-infer out/ --text "..."')
        if self.file is not None and self.pairs:
            raise ConfigError("--text-pair goes with --text", hint="name the file's second column with --pair-column")
        for option, given in (("--skip-bad-lines", self.skip_bad_lines), ("--input-format", self.input_format)):
            if self.file is None and given:
                raise ConfigError(f"{option} goes with --file", hint="leave it out, or give the texts in a file")


def _classify(
    model: SmartBert, source: _Source, policy: Policy, batch_size: int, truncate: bool, reporter: Reporter
) -> AbstractContextManager[FilePredictions]:
    if source.file is not None:
        return model.classify_file(
            source.file,
            columns=source.columns,
            policy=policy,
            batch_size=batch_size,
            truncate=truncate,
            skip_bad_lines=source.skip_bad_lines,
            input_format=source.input_format,
            reporter=reporter,
        )
    pairs = source.pairs or None
    found = model.classify(source.texts, text_pairs=pairs, policy=policy, batch_size=batch_size, truncate=truncate)
    return nullcontext(FilePredictions(indexed=iter(enumerate(found)), total=len(found)))


def _thresholds(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as err:
        raise ConfigError(
            f"--exit-thresholds takes numbers separated by commas, not {text!r}", hint="such as 0.1,0.2,0.2,0.3"
        ) from err


def _policy(preset: Policy, **changes: object) -> Policy:
    """The preset, with the options that were given replacing its values."""
    return replace(preset, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]


def _print_placements(model: SmartBert) -> None:
    print(f"{model.sessions.threads} threads, {model.sessions.variant.name}", file=sys.stderr)
    for part, counts in model.sessions.placements().items():
        taken = ", ".join(f"{count} nodes on {provider}" for provider, count in counts.items())
        taken = taken or "this onnxruntime does not report which provider runs which nodes"
        print(f"    {part}: {taken}", file=sys.stderr)


def main() -> None:
    """Entry point of the console script."""
    run_command(infer)
