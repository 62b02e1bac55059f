"""How smartbert-infer prints answers: text, JSON or csv lines on stdout, one a text; remarks on stderr."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from enum import StrEnum

import typer

from smartbert_runtime.chrome_trace import ChromeTrace
from smartbert_runtime.classifier import DEFAULT_BATCH_SIZE, Prediction


class Format(StrEnum):
    """How answers are printed."""

    text = "text"
    json = "json"
    csv = "csv"


def print_answers(
    answers: Iterator[tuple[int, Prediction]],
    format: Format,
    *,
    trace: bool,
    chrome: ChromeTrace | None,
    total: int | None,
    layers: int,
) -> None:
    """Each answer with its index as a line that leaves at once: whoever reads the pipe may be waiting for it.

    chrome: where to write what was run; None for nowhere.
    total: how many there will be, for the progress bar; None when nobody knows.
    """
    table = csv.writer(sys.stdout, lineterminator="\n")
    if format is Format.csv:
        table.writerow(["index", "text", "label", "score", "exit_layer", "layers_run", "layers_skipped", "latency_ms"])
    count = truncated = 0
    shown = (
        typer.progressbar(answers, length=total, show_pos=total is None, file=sys.stderr)
        if _wants_bar(total)
        else nullcontext(answers)
    )
    with shown as bar:
        for index, answer in bar:
            count += 1
            truncated += answer.truncated
            if format is Format.json:
                print(json.dumps(answer.as_dict(index), ensure_ascii=False))
            elif format is Format.csv:
                table.writerow(_csv_row(index, answer))
            else:
                print(_text_line(answer, layers))
            sys.stdout.flush()
            if trace:
                _print_trace(answer)
            if chrome is not None:
                chrome.add(answer.trace)
    if truncated:
        print(f"note: {truncated} of {count} texts were longer than the model and were cut", file=sys.stderr)


def _wants_bar(total: int | None) -> bool:
    """On a terminal, when there is much to do; of a pipe, when the answers themselves do not show how it goes."""
    if not sys.stderr.isatty():
        return False
    return not sys.stdout.isatty() if total is None else total >= 2 * DEFAULT_BATCH_SIZE


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
        took = "" if step.milliseconds == 0.0 else f"  {step.milliseconds:.2f} ms"  # one graph of all layers tells none
        print(
            f"    layer {step.layer}: {'skipped' if step.skipped else 'run'}{gate}{entropy}{took}{done}",
            file=sys.stderr,
        )
    others = [run for run in answer.trace.part_runs() if "_" not in run.part]
    print("    " + ", ".join(f"{run.part} {run.seconds * 1000.0:.2f} ms" for run in others), file=sys.stderr)
