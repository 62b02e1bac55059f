"""Printing predictions: text, JSON or csv on stdout, one line per text; traces and the progress bar on stderr."""

from __future__ import annotations

import csv
import json
import sys
from contextlib import nullcontext
from enum import StrEnum

import typer

from smartbert_runtime.chrome_trace import ChromeTrace
from smartbert_runtime.classifier import DEFAULT_BATCH_SIZE
from smartbert_runtime.classify_file import FilePredictions
from smartbert_runtime.cli.command import shows_bars
from smartbert_runtime.prediction import Prediction
from smartbert_runtime.reporting import Reporter


class Format(StrEnum):
    """How predictions are printed."""

    text = "text"
    json = "json"
    csv = "csv"


def print_predictions(
    predictions: FilePredictions,
    format: Format,
    reporter: Reporter,
    *,
    layers: int,
    trace: bool,
    chrome: ChromeTrace | None,
) -> None:
    """Print each prediction on a line, flushed at once: the reader of a pipe may be waiting for it.

    layers: how many the model has.
    trace: also print each text's trace to stderr.
    chrome: where to add each text's part runs; None for nowhere.
    """
    table = csv.writer(sys.stdout, lineterminator="\n")
    if format is Format.csv:
        table.writerow(["index", "text", "label", "score", "exit_layer", "layers_run", "layers_skipped", "latency_ms"])
    count = truncated = 0
    total = predictions.total
    shown = (
        typer.progressbar(predictions, length=total, show_pos=total is None, file=sys.stderr)
        if _wants_bar(total)
        else nullcontext(predictions)
    )
    with shown as bar:
        for index, prediction in bar:
            count += 1
            truncated += prediction.truncated
            if format is Format.json:
                print(json.dumps({"index": index, **prediction.to_dict()}, ensure_ascii=False))
            elif format is Format.csv:
                table.writerow(_csv_row(index, prediction))
            else:
                print(_text_line(prediction, layers))
            sys.stdout.flush()
            if trace:
                _print_trace(prediction)
            if chrome is not None:
                chrome.add(prediction.trace)
    if truncated:
        reporter.note(f"{truncated} of {count} texts were longer than the model and were cut")


def _wants_bar(total: int | None) -> bool:
    """Only on a terminal, for many texts; for an unknown number only where the answers themselves go elsewhere."""
    if not shows_bars():
        return False
    return not sys.stdout.isatty() if total is None else total >= 2 * DEFAULT_BATCH_SIZE


def _text_line(prediction: Prediction, layers: int) -> str:
    drawn = "".join(
        "#" if layer in prediction.layers_run else "-" if layer in prediction.layers_skipped else "."
        for layer in range(1, layers + 1)
    )
    pair = "" if prediction.text_pair is None else f" | {prediction.text_pair}"
    return (
        f"{prediction.label}  {prediction.score:.3f}  {drawn}  {len(prediction.layers_run)} of {layers} layers  "
        f"{prediction.latency_ms:.1f} ms  {prediction.text}{pair}"
    )


def _csv_row(index: int, prediction: Prediction) -> list[object]:
    run, skipped = (" ".join(map(str, layers)) for layers in (prediction.layers_run, prediction.layers_skipped))
    return [
        index,
        prediction.text,
        prediction.label,
        prediction.score,
        prediction.exit_layer,
        run,
        skipped,
        prediction.latency_ms,
    ]


def _print_trace(prediction: Prediction) -> None:
    for step in prediction.trace.steps():
        gate = "" if step.skip_probability is None else f"  skip probability {step.skip_probability:.3f}"
        uncertainty = "" if step.uncertainty is None else f"  uncertainty {step.uncertainty:.3f}"
        done = "  answers" if step.answered else ""
        took = (
            "" if step.milliseconds == 0.0 else f"  {step.milliseconds:.2f} ms"
        )  # the single graph has no times per layer
        print(
            f"    layer {step.layer}: {'skipped' if step.skipped else 'run'}{gate}{uncertainty}{took}{done}",
            file=sys.stderr,
        )
    others = [run for run in prediction.trace.part_runs() if "_" not in run.part]
    print("    " + ", ".join(f"{run.part} {run.seconds * 1000.0:.2f} ms" for run in others), file=sys.stderr)
