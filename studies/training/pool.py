"""Several runs, some of them side by side, each in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import NamedTemporaryFile

from smartbert.library_logging import quiet_libraries
from smartbert.progress import Say
from smartbert_runtime.errors import InputError, TrainingError
from studies.training.runs import Run, do_run, is_done


def do_runs(
    runs: Sequence[Run],
    results: Path,
    work: Path,
    *,
    jobs: int = 1,
    keep_checkpoints: bool = False,
    overwrite: bool = False,
    say: Say = lambda line: None,
) -> None:
    """Make the runs whose figures are not in `results` yet, `jobs` of them at a time.

    overwrite: also where another run's file, of other settings, texts or encoder, is in the way; else InputError. What
    was interrupted then begins anew.
    Raises the first run's error after all others are done; a process that is killed ends them all.
    """
    missing = [run for run in runs if not is_done(run, results)]
    for run in missing:
        if run.file(results).exists() and not overwrite:
            raise InputError(
                f"{run.file(results)} holds a run with other settings, texts or encoder",
                hint="give another --output, or --overwrite to replace it",
            )
    for folder in (results, work):
        _check_writable(folder)
    say(f"{len(runs)} runs, {len(runs) - len(missing)} of them done before")
    with (
        _environment(OMP_NUM_THREADS=str(threads_a_run(jobs))),
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool,
    ):
        waiting = {pool.submit(_one, run, results, work, keep_checkpoints, overwrite): run for run in missing}
        failed = None
        for number, done in enumerate(as_completed(waiting), start=1):
            file = waiting[done].file(results)
            error = done.exception()
            failed = failed or error
            say(f"[{number}/{len(missing)}] {file}" + (f" FAILED: {error}" if error else ""))
    if isinstance(failed, BrokenProcessPool):
        raise TrainingError(
            "a run's process was killed, perhaps for lack of memory",
            hint="fewer --jobs need less; the same command goes on where this one stopped",
        ) from failed
    if failed is not None:
        raise failed


def threads_a_run(jobs: int) -> int:
    """Each run's share of the cores, or OMP_NUM_THREADS where it asks for fewer: another command may have the rest."""
    share = max(1, len(os.sched_getaffinity(0)) // jobs)
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(wanted)) if wanted.isdigit() and int(wanted) else share


def _check_writable(folder: Path) -> None:
    """InputError now, and not after an hour of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder):
            pass
    except OSError as err:
        raise InputError(f"{folder} cannot be written: {err.strerror}", hint="check the path and its rights") from err


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """What processes started inside find in their environment.

    Side by side with all cores each, torch's threads would spin against each other; it reads the number as it starts.
    """
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _one(run: Run, results: Path, work: Path, keep_checkpoints: bool, anew: bool) -> None:
    quiet_libraries()
    name = f"{run.task.name} {run.backbone} {run.label} seed {run.settings.seed}"
    do_run(
        run,
        results,
        work,
        keep_checkpoint=keep_checkpoints,
        anew=anew,
        say=lambda line: print(f"{name}: {line}", file=sys.stderr, flush=True),
    )
