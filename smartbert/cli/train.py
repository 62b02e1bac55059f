"""smartbert-train: train a classifier on labeled texts and write a checkpoint folder."""

from __future__ import annotations

import inspect
import os
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smartbert.data.sources import DataSource
from smartbert.data.splits import load_task
from smartbert.training.arms import ARMS
from smartbert.training.settings import CHOICES, RECIPES, TrainingSettings
from smartbert_runtime.cli.command import choices, is_quiet, require_extra, run_command, shows_bars
from smartbert_runtime.cli.file_options import TEXT_COLUMN_HELP
from smartbert_runtime.text_files.columns import LABEL_COLUMN, Columns

if TYPE_CHECKING:
    from smartbert.training.report import TrainingReport


def train(
    model: Annotated[str, typer.Option(help="Pretrained encoder: a hub name or a local folder.")],
    output: Annotated[Path, typer.Option(help="Checkpoint folder to write.")],
    train_file: Annotated[
        Path | None,
        typer.Option(help="Labeled training texts: tsv, csv, jsonl, json (one object a line) or parquet, .gz too."),
    ] = None,
    dev_file: Annotated[Path | None, typer.Option(help="Texts to report on, never trained on.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Instead of files: a data set by hub name or folder, e.g. nyu-mll/glue."),
    ] = None,
    task: Annotated[str | None, typer.Option(help="The data set's configuration, e.g. sst2.")] = None,
    dev_split: Annotated[
        str | None, typer.Option(help="The data set's split to report on; default: validation.")
    ] = None,
    text_column: Annotated[str | None, typer.Option(help=TEXT_COLUMN_HELP)] = None,
    pair_column: Annotated[str | None, typer.Option(help="Column of the second text, for pairs.")] = None,
    label_column: Annotated[str, typer.Option(help="Column of the label.")] = LABEL_COLUMN,
    max_train_samples: Annotated[int | None, typer.Option(help="Use only the first N training texts.")] = None,
    recipe: Annotated[
        str,
        typer.Option(
            metavar=choices(*RECIPES),
            help="Defaults of all settings below: best (this project's) or paper (its authors').",
        ),
    ] = "best",
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run of the same command.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUTPUT if it exists.")] = False,
    **hyper_parameters: Any,
) -> None:
    """Train a text classifier that decides for each text which of its layers to run.

    Stage 1 trains the encoder, the skipping gates and the exit heads; stage 2 all exit heads but the last. Thresholds
    are chosen on texts held out from training; the dev texts are only reported on. --arm trains what SmartBERT is
    compared with. Another --stage1-epochs keeps the recipe's shares of ungated and soft ones.

    Example: smartbert-train --model google-bert/bert-base-uncased --train-file train.tsv --dev-file dev.tsv \\
    --output ckpt
    """
    given = {name: value for name, value in hyper_parameters.items() if value is not None}
    # All that can be checked is checked before torch is imported, which takes seconds.
    settings = TrainingSettings.from_recipe(recipe, **given)
    source = DataSource(
        train_file=train_file,
        dev_file=dev_file,
        dataset=dataset,
        task=task,
        dev_split=dev_split,
        columns=Columns(text=text_column, pair=pair_column, label=label_column),
        max_train_samples=max_train_samples,
    )
    data = load_task(source, validation_fraction=settings.validation_fraction, seed=settings.seed)
    with require_extra("smartbert-train", "train"):
        from smartbert.library_logging import quiet_libraries
        from smartbert.training.train import train as run_training
    quiet_libraries()
    bar = _is_main_process() and shows_bars()
    report = run_training(model, data, output, settings, resume=resume, overwrite=overwrite, bar=bar, log=_log)
    if _is_main_process():
        print(_summary(report, output))


def _is_main_process() -> bool:
    """torchrun numbers its processes; only the first one prints."""
    return os.environ.get("RANK", "0") == "0"


def _log(line: str) -> None:
    if _is_main_process() and not is_quiet():
        print(line, file=sys.stderr, flush=True)


def _summary(report: TrainingReport, output: Path) -> str:
    evaluation = report.dev_evaluation
    if report.exit_threshold_choice is None:
        return "\n".join(
            (
                f"checkpoint      {output}",
                f"dev accuracy    {report.dev.accuracy:.4f}",
                f"layers run      {evaluation.layers} of {evaluation.layers}",
            )
        )
    lines = [
        f"checkpoint      {output}",
        f"exit threshold  {report.exit_threshold:.4g} (normalized entropy), skip threshold {report.skip_threshold:.2f}",
        f"dev accuracy    {report.dev.accuracy:.4f} ({report.dev_full_depth.accuracy:.4f} without early exits)",
        f"layers run      {report.dev.mean_layers_run:.2f} of {evaluation.layers}",
        f"computation     {evaluation.macs / evaluation.plain_macs:.1%} of a plain classifier's MAC",
    ]
    if ARMS[report.settings.arm].gated:  # arms without gates exist for comparison
        lines.append(f"next            smartbert-export {output} OUT")
    return "\n".join(lines)


def _with_hyper_parameters() -> None:
    """Give `train` one option for each field of TrainingSettings, which is the only list of them.

    An option that is not given is None, and the recipe's value applies.
    """
    signature = inspect.signature(train, eval_str=True)
    fixed = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    about = TrainingSettings.help()
    types = {"int": int, "float": float, "bool": bool, "str": str}
    options = [
        inspect.Parameter(
            item.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                types[str(item.type)] | None,
                typer.Option(
                    metavar=choices(*CHOICES[item.name]) if item.name in CHOICES else None,
                    help=_arms() if item.name == "arm" else about[item.name][0],
                    rich_help_panel=about[item.name][1],
                    show_default=_shown_default(item.name, item.default),
                ),
            ],
        )
        for item in fields(TrainingSettings)
    ]
    train.__signature__ = signature.replace(parameters=[*fixed, *options])  # type: ignore[attr-defined]


def _arms() -> str:
    return "What to train. " + "; ".join(f"{name}: {arm.about}" for name, arm in ARMS.items()) + "."


def _shown_default(name: str, default: object) -> str:
    paper = RECIPES["paper"].get(name, default)
    return str(default) if paper == default else f"{default}; paper: {paper}"


_with_hyper_parameters()


def main() -> None:
    """Entry point of the console script."""
    run_command(train)
