"""smartbert-evaluate: measure a checkpoint's accuracy, the depth of its texts and their computation."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from smartbert_runtime.cli.command import (
    ReportFormat,
    TerminalReporter,
    check_picture_file,
    choices,
    require_extra,
    run_command,
    shows_bars,
)
from smartbert_runtime.cli.file_options import INPUT_FORMAT_HELP, LABELED_FILE_HELP, TEXT_COLUMN_HELP
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.text_files.columns import LABEL_COLUMN, Columns, check_pairs
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.text_files.formats import FORMATS


def evaluate_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint folder, of any arm.")],
    file: Annotated[Path, typer.Option(help=LABELED_FILE_HELP)],
    exit_threshold: Annotated[
        float | None, typer.Option(help="Normalized entropy, 0 to 1; default: the checkpoint's.")
    ] = None,
    skip_threshold: Annotated[
        float | None, typer.Option(help="Skip probability, 0 to 1; default: the checkpoint's.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help=TEXT_COLUMN_HELP)] = None,
    pair_column: Annotated[str | None, typer.Option(help="Column of the second text, for pairs.")] = None,
    label_column: Annotated[str, typer.Option(help="Column of the label.")] = LABEL_COLUMN,
    input_format: Annotated[str | None, typer.Option(metavar=choices(*FORMATS), help=INPUT_FORMAT_HELP)] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts per batch; changes the time, not the figures.")] = 32,
    format: Annotated[ReportFormat, typer.Option(help="How to print the report.")] = ReportFormat.text,
    plot: Annotated[Path | None, typer.Option(help="Also draw the curves into this PNG or SVG file.")] = None,
) -> None:
    """Measure accuracy, F1 and Matthews correlation, depth, and MAC per text, and the curves behind them.

    F1 is the second label's where there are two, else the mean over labels (macro). MAC (multiply-accumulates) are
    counted at each text's real length, attention, gates and exit heads included. The curves: early exits over all
    thresholds with gates on and off, patience instead of entropy, skipping without exits.

    Example: smartbert-evaluate ckpt/ --file dev.tsv
    """
    with require_extra("smartbert-evaluate", "train"):
        from tqdm import tqdm

        from smartbert.checkpoint_folder import load_classifier
        from smartbert.data.splits import number_labels
        from smartbert.evaluation.evaluate import SKIP_THRESHOLDS, evaluate
        from smartbert.evaluation.evaluation_text import evaluation_text
        from smartbert.evaluation.recording import tokenize
        from smartbert.library_logging import quiet_libraries
        from smartbert.plain_classifier import PlainClassifier
        from smartbert.trained_model import has_gates, input_limit, label_names, policy_of, trained_on_pairs
    if plot is not None:
        with require_extra("smartbert-evaluate --plot", "bench"):
            from smartbert.evaluation.plots import plot_evaluation
        check_picture_file(plot)
    quiet_libraries()
    columns = Columns(text=text_column, pair=pair_column, label=label_column)
    examples = read_examples(file, columns, labeled=True, input_format=input_format)
    with TerminalReporter() as reporter:
        reporter.note(examples.describe())
    model, tokenizer = load_classifier(checkpoint)
    check_pairs(trained_on_pairs(model), examples.pairs is not None, examples.source)
    labels = label_names(model)
    split = tokenize(number_labels(examples, labels), tokenizer, input_limit(model, tokenizer))
    gates, exits = has_gates(model), not isinstance(model, PlainClassifier)
    _note_unused(exit_threshold if not exits else None, skip_threshold if not gates else None)
    policy = _policy(policy_of(model), exit_threshold, skip_threshold)
    passes = 2 + len(SKIP_THRESHOLDS) if gates else 1
    with tqdm(total=len(split) * passes, unit="text", disable=not shows_bars()) as bar:
        report = evaluate(model, split, tokenizer, labels, policy, batch_size=batch_size, tick=bar.update)
    print(json.dumps(asdict(report)) if format is ReportFormat.json else evaluation_text(report))
    if plot is not None:
        plot_evaluation(report, plot)


def _note_unused(exit_threshold: float | None, skip_threshold: float | None) -> None:
    with TerminalReporter() as reporter:
        if skip_threshold is not None:
            reporter.note("the checkpoint has no gates; --skip-threshold changes nothing")
        if exit_threshold is not None:
            reporter.note("a plain classifier has one answer; --exit-threshold changes nothing")


def _policy(policy: Policy, exit_threshold: float | None, skip_threshold: float | None) -> Policy:
    """The checkpoint's policy, with the thresholds that were given replacing its own."""
    return replace(
        policy,
        exit_threshold=policy.exit_threshold if exit_threshold is None else exit_threshold,
        skip_threshold=policy.skip_threshold if skip_threshold is None else skip_threshold,
    )


def main() -> None:
    """Entry point of the console script."""
    run_command(evaluate_checkpoint)
