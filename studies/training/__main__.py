"""python -m studies.training: trains the arms of a study and writes its table, or times training steps."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from smartbert.training.settings import TrainingSettings
from smartbert_runtime.cli.command import require_extra, run_commands
from smartbert_runtime.errors import ConfigError

_Task = Annotated[str, typer.Option(help="trec6, or a GLUE task: sst2, mrpc, cola, rte, wnli, qnli, qqp, mnli.")]
_Model = Annotated[str, typer.Option(help="Pretrained encoder: a hub name or a local folder.")]
_Data = Annotated[
    Path | None, typer.Option(help="Folder with TASK/train.tsv and TASK/dev.tsv; default: the hub's data sets.")
]
_Samples = Annotated[int | None, typer.Option(help="Use only the first N training texts.")]
_Set = Annotated[
    list[str],
    typer.Option("--set", help="A setting of smartbert-train for all runs, as batch_size=16; repeatable."),
]
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"


def glue(
    task: _Task,
    study: Annotated[
        str,
        typer.Option(
            help="arms: SmartBERT and its rivals; options: the default recipe with one option changed at a time; "
            "gates: where skipping pays."
        ),
    ] = "arms",
    model: _Model = DEFAULT_MODEL,
    data: _Data = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds, from 50 on.")] = 1,
    arms: Annotated[str, typer.Option(help="Comma-separated, of the study's; default: all.")] = "",
    output: Annotated[
        Path, typer.Option(help="Folder for figures and tables; runs that are already there are not repeated.")
    ] = Path("studies/results"),
    work: Annotated[Path, typer.Option(help="Working files; interrupted runs are resumed from there.")] = Path(
        "build/experiments"
    ),
    max_train_samples: _Samples = None,
    jobs: Annotated[int, typer.Option(min=1, help="Parallel runs, each on its share of the cores.")] = 1,
    note: Annotated[str, typer.Option(help="A remark on the encoder, shown with the table.")] = "",
    set_: _Set = [],  # noqa: B006 - typer reads the default and never changes it
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep the trained checkpoints in WORK.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Replace files of runs with other settings, texts or encoders, and restart interrupted ones.",
        ),
    ] = False,
) -> None:
    """Train every arm of a study on one task, and write its table (Markdown), figures (JSON) and plot (PNG).

    Example: python -m studies.training glue --task trec6 --data FOLDER --seeds 3
    """
    with require_extra("python -m studies.training", "bench"):
        from studies.training.plan import study_runs
        from studies.training.pool import do_runs
        from studies.training.write import write_table
    setup = _setup(task, model, data, max_train_samples, note, set_)
    labels = [name.strip() for name in arms.split(",") if name.strip()]
    runs = study_runs(setup, study, range(50, 50 + seeds), labels)
    do_runs(runs, output, work, jobs=jobs, keep_checkpoints=keep_checkpoints, overwrite=overwrite, log=_log)
    for file in write_table(output, setup, study):
        print(file)


def steps(
    task: _Task,
    model: _Model = DEFAULT_MODEL,
    data: _Data = None,
    count: Annotated[int, typer.Option(min=4, help="Steps of each kind.")] = 30,
    max_train_samples: _Samples = None,
    set_: _Set = [],  # noqa: B006
) -> None:
    """Time a training step of every stage against a plain fine-tuning step of the same encoder, in turns, on the CPU.

    Example: python -m studies.training steps --task sst2
    """
    with require_extra("python -m studies.training", "train"):
        from smartbert.data.splits import load_task
        from smartbert.library_logging import quiet_libraries
        from studies.training.steps import time_steps
    quiet_libraries()
    setup = _setup(task, model, data, max_train_samples, "", set_)
    settings = TrainingSettings(**setup.settings)
    source = setup.task.source(data, max_train_samples)
    texts = load_task(source, validation_fraction=settings.validation_fraction, seed=settings.seed)
    report = time_steps(model, texts, settings, steps=count)
    for cost in report.costs:
        print(
            f"{cost.name:<16} {1000 * cost.median_s:8.1f} ms a step  {cost.ratio:5.2f}x plain "
            f"({cost.low:.2f} to {cost.high:.2f})"
        )
    print(report.conditions)


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _setup(task: str, model: str, data: Path | None, max_train_samples: int | None, note: str, given: list[str]) -> Any:
    from studies.training.plan import Setup
    from studies.training.tasks import TASKS

    if task not in TASKS:
        raise ConfigError(f"unknown task {task!r}", hint="known tasks: " + ", ".join(TASKS))
    TASKS[task].source(data, max_train_samples)  # its errors now, not once per run
    settings = dict(TrainingSettings.parse(entry) for entry in given)
    for name in ("arm", "seed", "pooling", "keep_layers", "metric"):
        if name in settings:
            raise ConfigError(f"{name} is set by the study", hint="choose with --study, --arms, --seeds and --task")
    return Setup(
        task=TASKS[task],
        model=model,
        data=data,
        max_train_samples=max_train_samples,
        note=note,
        settings=settings,
    )


def main() -> None:
    """Entry point of `python -m studies.training`."""
    run_commands(glue, steps)


if __name__ == "__main__":
    main()
