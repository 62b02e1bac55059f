"""smartbert-infer: texts in, labels out, and which layers each text ran."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from smartbert_runtime.chrome_trace import chrome_trace
from smartbert_runtime.classifier import DEFAULT_BATCH_SIZE, DEFAULT_PRESET, SmartBert
from smartbert_runtime.classify_file import Ask
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.cli.print_predictions import Format, print_answers
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.threads import share_thread_pool
from smartbert_runtime.text_files.columns import Columns


def infer(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package folder that smartbert-export wrote.")],
    text: Annotated[list[str], typer.Option(help="A text to classify; repeatable.")] = [],  # noqa: B006
    text_pair: Annotated[list[str], typer.Option(help="The second text of each --text, for pairs.")] = [],  # noqa: B006
    file: Annotated[
        Path | None,
        typer.Option(
            help="Texts from a txt, csv, tsv or jsonl file, checked as a whole before the first answer; - reads "
            "standard input, of which a pipe's lines are answered as they arrive."
        ),
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text; default: found by its name.")] = None,
    pair_column: Annotated[str | None, typer.Option(help="Column of the second text, for pairs.")] = None,
    skip_bad_lines: Annotated[
        bool,
        typer.Option(
            "--skip-bad-lines",
            help="Leave out the lines of --file that cannot be used and name them on stderr; `index` counts them, so "
            "that answers can be joined with lines; blank lines of jsonl and tables do not count.",
        ),
    ] = False,
    format: Annotated[Format, typer.Option(help="How to print the answers.")] = Format.text,
    trace: Annotated[
        bool,
        typer.Option("--trace", help="Show on stderr what gates and exit heads said, and how long parts took."),
    ] = False,
    trace_file: Annotated[
        Path | None,
        typer.Option(help="Write when each part ran, as JSON that chrome://tracing or ui.perfetto.dev draws."),
    ] = None,
    preset: Annotated[str, typer.Option(help="Named policy of the package's policy.json.")] = DEFAULT_PRESET,
    rule: Annotated[
        str | None,
        typer.Option(
            help="When a head answers: entropy or max-probability (uncertainty below the threshold), patience (heads "
            "that repeat the label) or confident-patience (sure heads in a row)."
        ),
    ] = None,
    exit_threshold: Annotated[
        float | None, typer.Option(help="Answer at an uncertainty below this, 0 (never) to 1; normalized entropy.")
    ] = None,
    exit_thresholds: Annotated[
        str | None,
        typer.Option(metavar="T1,T2,...", help="One exit threshold a layer, in place of one for all."),
    ] = None,
    patience: Annotated[int | None, typer.Option(help="Heads in a row, for the rules that count them.")] = None,
    skip_threshold: Annotated[
        float | None, typer.Option(help="Skip a layer at this skip probability and above, 0 to 1.")
    ] = None,
    no_skip: Annotated[bool, typer.Option("--no-skip", help="Skip no layer.")] = False,
    no_exit: Annotated[bool, typer.Option("--no-exit", help="Answer only after the last layer.")] = False,
    max_layers: Annotated[int | None, typer.Option(help="Run at most this many layers a text.")] = None,
    deadline_ms: Annotated[
        float | None,
        typer.Option(
            help="Answer with what there is after so many milliseconds, one layer late at most; the batch's, so give "
            "--batch-size 1 for each text's own."
        ),
    ] = None,
    batch_size: Annotated[
        int, typer.Option(help="Texts computed together; changes no answer, but with --deadline-ms.")
    ] = DEFAULT_BATCH_SIZE,
    layout: Annotated[str | None, typer.Option(help="Layout to run; default: the package's first.")] = None,
    precision: Annotated[str | None, typer.Option(help="Precision to run; default: the package's first.")] = None,
    provider: Annotated[
        list[str], typer.Option(help="onnxruntime execution provider; repeat for an order of preference.")
    ] = [CPU],  # noqa: B006
    threads: Annotated[int | None, typer.Option(help="Cores to use; default: all this process may use.")] = None,
    truncate: Annotated[
        bool,
        typer.Option("--truncate/--no-truncate", help="Cut texts longer than the model, or refuse them."),
    ] = True,
    preload: Annotated[
        bool, typer.Option("--preload", help="Load every part first, so that no text waits for one.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Say on stderr which provider ran what.")] = False,
) -> None:
    """Classify texts; each text runs only the layers it needs.

    Answers go to stdout, remarks to stderr.

    Example: smartbert-infer out/ --text "You won a prize, call now!"
    """
    _check_source(text, text_pair, file, skip_bad_lines)
    share_thread_pool(threads)  # the process is all ours
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
    ask = Ask(model=model, policy=policy, batch_size=batch_size, truncate=truncate, skip_bad_lines=skip_bad_lines)
    if file is None:
        asked = ask.texts(text, text_pair or None)
    else:
        asked = ask.file(file, Columns(text=text_column, pair=pair_column))
    layers = model.package.manifest.model.layers
    with asked as (answers, total), nullcontext() if trace_file is None else chrome_trace(trace_file) as chrome:
        print_answers(answers, format, trace=trace, chrome=chrome, total=total, layers=layers)
    if verbose:
        _print_placements(model)
    for note in model.package.notes:
        print(f"note: {note}", file=sys.stderr)


def _check_source(texts: list[str], pairs: list[str], file: Path | None, skip_bad_lines: bool) -> None:
    if bool(texts) == (file is not None):
        raise ConfigError("give texts with --text, or with --file", hint='smartbert-infer out/ --text "..."')
    if file is not None and pairs:
        raise ConfigError("--text-pair goes with --text", hint="name the file's second column with --pair-column")
    if file is None and skip_bad_lines:
        raise ConfigError("--skip-bad-lines goes with --file", hint="leave it out, or give the texts in a file")


def _thresholds(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError as err:
        raise ConfigError(
            f"--exit-thresholds takes numbers with commas between them, not {text!r}", hint="such as 0.1,0.2,0.2,0.3"
        ) from err


def _policy(preset: Policy, **changes: object) -> Policy:
    """The preset with the options that were given in its place."""
    return replace(preset, **{name: value for name, value in changes.items() if value is not None})  # type: ignore[arg-type]


def _print_placements(model: SmartBert) -> None:
    print(f"{model.sessions.threads} threads, {model.sessions.variant.name}", file=sys.stderr)
    for part, counts in model.sessions.placements().items():
        taken = ", ".join(f"{count} nodes on {provider}" for provider, count in counts.items())
        taken = taken or "this onnxruntime does not tell which provider took which nodes"
        print(f"    {part}: {taken}", file=sys.stderr)


def main() -> None:
    """Entry point of the console script."""
    run_command(infer)
