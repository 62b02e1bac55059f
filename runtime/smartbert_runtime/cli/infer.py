"""smartbert-infer: texts in, labels out, and which layers each text ran."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from smartbert_runtime.classifier import DEFAULT_BATCH_SIZE, DEFAULT_PRESET, Prediction, SmartBert, check_texts
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.policy import Policy
from smartbert_runtime.records import Columns, read_examples
from smartbert_runtime.sessions import CPU


class Format(StrEnum):
    """How answers are printed."""

    text = "text"
    json = "json"
    csv = "csv"


def infer(
    package: Annotated[Path, typer.Argument(metavar="OUT", help="Package folder that smartbert-export wrote.")],
    text: Annotated[list[str], typer.Option(help="A text to classify; repeatable.")] = [],  # noqa: B006
    text_pair: Annotated[list[str], typer.Option(help="The second text of each --text, for pairs.")] = [],  # noqa: B006
    file: Annotated[
        Path | None, typer.Option(help="Texts from a txt, csv, tsv or jsonl file; - reads standard input.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text; default: found by its name.")] = None,
    pair_column: Annotated[str | None, typer.Option(help="Column of the second text, for pairs.")] = None,
    format: Annotated[Format, typer.Option(help="How to print the answers.")] = Format.text,
    trace: Annotated[bool, typer.Option("--trace", help="Show on stderr what every gate and exit head said.")] = False,
    preset: Annotated[str, typer.Option(help="Named policy of the package's policy.json.")] = DEFAULT_PRESET,
    rule: Annotated[
        str | None,
        typer.Option(
            help="When a head answers: entropy or max-probability (uncertainty below the threshold), patience (heads "
            "that repeat the label) or confident-patience (sure heads in a row)."
        ),
    ] = None,
    exit_threshold: Annotated[
        float | None, typer.Option(help="Answer at an uncertainty below this, 0 (never) to 1; normalised entropy.")
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
    texts, pairs = _texts(text, text_pair, file, Columns(text=text_column, pair=pair_column))
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
    answers = _answers(model, texts, pairs, policy, batch_size, truncate)
    _print(answers, format, trace=trace, total=len(texts), layers=model.package.manifest.model.layers)
    if verbose:
        _print_placements(model)
    for note in model.package.notes:
        print(f"note: {note}", file=sys.stderr)


def _texts(
    texts: list[str], pairs: list[str], file: Path | None, columns: Columns
) -> tuple[Sequence[str], Sequence[str] | None]:
    if bool(texts) == (file is not None):
        raise ConfigError("give texts with --text, or with --file", hint='smartbert-infer out/ --text "..."')
    if file is not None and pairs:
        raise ConfigError("--text-pair goes with --text", hint="name the file's second column with --pair-column")
    if file is not None:
        examples = read_examples(file, columns)
        return examples.texts, examples.pairs
    return texts, pairs or None


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


def _answers(
    model: SmartBert,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    policy: Policy,
    batch_size: int,
    truncate: bool,
) -> Iterator[Prediction]:
    """Predictions in order; what would be refused is looked for in all texts before the first is answered."""
    check_texts(texts, pairs)
    if not truncate:
        model.tokenizer.encode(texts, pairs, truncate=False)
    asked = texts if pairs is None else zip(texts, pairs, strict=True)
    yield from model.stream(asked, policy=policy, batch_size=batch_size, truncate=truncate)


def _print(answers: Iterator[Prediction], format: Format, *, trace: bool, total: int, layers: int) -> None:
    table = csv.writer(sys.stdout, lineterminator="\n")
    if format is Format.csv:
        table.writerow(["index", "text", "label", "score", "exit_layer", "layers_run", "layers_skipped", "latency_ms"])
    truncated = 0
    hidden = total < 2 * DEFAULT_BATCH_SIZE or not sys.stderr.isatty()
    shown = nullcontext(answers) if hidden else typer.progressbar(answers, length=total, file=sys.stderr)
    with shown as bar:
        for index, answer in enumerate(bar):
            truncated += answer.truncated
            if format is Format.json:
                print(json.dumps(answer.as_dict(index), ensure_ascii=False))
            elif format is Format.csv:
                table.writerow(_csv_row(index, answer))
            else:
                print(_text_line(answer, layers))
            if trace:
                _print_trace(answer)
    if truncated:
        print(f"note: {truncated} of {total} texts were longer than the model and were cut", file=sys.stderr)


def _text_line(answer: Prediction, layers: int) -> str:
    drawn = "".join(
        "#" if layer in answer.layers_run else "-" if layer in answer.layers_skipped else "."
        for layer in range(1, layers + 1)
    )
    pair = "" if answer.text_pair is None else f" | {answer.text_pair}"
    return (
        f"{answer.label}  {answer.score:.3f}  {drawn}  {len(answer.layers_run)} of {layers} layers  "
        f"{answer.latency_ms:.1f} ms  {answer.text}{pair}"
    )


def _csv_row(index: int, answer: Prediction) -> list[object]:
    run, skipped = (" ".join(map(str, layers)) for layers in (answer.layers_run, answer.layers_skipped))
    return [
        index,
        answer.text,
        answer.label,
        answer.score,
        answer.exit_layer,
        run,
        skipped,
        answer.latency_ms,
    ]


def _print_trace(answer: Prediction) -> None:
    for step in answer.trace.steps():
        gate = "" if step.skip_probability is None else f"  skip probability {step.skip_probability:.3f}"
        entropy = "" if step.entropy is None else f"  entropy {step.entropy:.3f}"
        done = "  answers" if step.answered else ""
        print(
            f"    layer {step.layer}: {'skipped' if step.skipped else 'run'}{gate}{entropy}{done}",
            file=sys.stderr,
        )


def _print_placements(model: SmartBert) -> None:
    print(f"{model.sessions.threads} threads, {model.sessions.variant.name}", file=sys.stderr)
    for part, counts in model.sessions.placements().items():
        taken = ", ".join(f"{count} nodes on {provider}" for provider, count in counts.items())
        taken = taken or "this onnxruntime does not tell which provider took which nodes"
        print(f"    {part}: {taken}", file=sys.stderr)


def main() -> None:
    """Entry point of the console script."""
    run_command(infer)
