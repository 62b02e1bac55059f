"""Makes the runs that are missing, several in parallel, each in its own process."""

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
from smartbert.training.progress import Log
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
    log: Log = lambda line: None,
) -> None:
    """Make the runs whose figures are not in `results` yet, `jobs` of them at a time.

    overwrite: replace the files of runs with other settings, texts or encoders, which are an InputError otherwise, and
    restart interrupted runs.
    Raises the first failed run's error after all others are done; a killed process ends them all.
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
    log(f"{len(runs)} runs, {len(runs) - len(missing)} of them done before")
    with (
        _environment(OMP_NUM_THREADS=str(threads_a_run(jobs))),
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool,
    ):
        waiting = {
            pool.submit(_run_in_process, run, results, work, keep_checkpoints, overwrite): run for run in missing
        }
        failed = None
        for number, done in enumerate(as_completed(waiting), start=1):
            file = waiting[done].file(results)
            error = done.exception()
            failed = failed or error
            log(f"[{number}/{len(missing)}] {file}" + (f" FAILED: {error}" if error else ""))
    if isinstance(failed, BrokenProcessPool):
        raise TrainingError(
            "a run's process was killed, perhaps for lack of memory",
            hint="fewer --jobs need less; the same command resumes where this one stopped",
        ) from failed
    if failed is not None:
        raise failed


def threads_a_run(jobs: int) -> int:
    """Each run's share of the cores, or OMP_NUM_THREADS where that is less: another command may use the rest."""
    share = max(1, len(os.sched_getaffinity(0)) // jobs)
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(limit)) if limit.isdigit() and int(limit) else share


def _check_writable(folder: Path) -> None:
    """Raise InputError now, not after an hour of training."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder):
            pass
    except OSError as err:
        raise InputError(f"{folder} cannot be written: {err.strerror}", hint="check the path and its rights") from err


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Environment variables for the processes that are started inside.

    With all cores for each parallel run, torch's threads would spin against each other; it reads the number at start.
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


def _run_in_process(run: Run, results: Path, work: Path, keep_checkpoints: bool, restart: bool) -> None:
    quiet_libraries()
    name = f"{run.task.name} {run.backbone} {run.label} seed {run.settings.seed}"
    do_run(
        run,
        results,
        work,
        keep_checkpoint=keep_checkpoints,
        restart=restart,
        log=lambda line: print(f"{name}: {line}", file=sys.stderr, flush=True),
    )
