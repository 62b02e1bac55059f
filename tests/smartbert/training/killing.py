"""Trains in a process of its own that dies by SIGKILL at a chosen file operation, where `kill -9` could have hit it."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from smartbert.data.splits import TaskData
from smartbert.training.settings import TrainingSettings
from smartbert.training.train import train

# Starting a process costs seconds of imports: one server imports once, and its forks have it done. For gc.freeze see
# tests/smartbert/conftest.py.
gc.freeze()
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])


@dataclass(frozen=True, kw_only=True)
class Point:
    """The moment before Python does `event` (an audit event: "open", "os.rename", ...) to a path like `path`."""

    event: str
    path: str

    def kill_here(self) -> None:
        """From now on this process ends as soon as it reaches the point."""

        def hook(event: str, arguments: tuple[object, ...]) -> None:
            if event == self.event and isinstance(arguments[0], str | Path) and fnmatch(str(arguments[0]), self.path):
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)


@dataclass(frozen=True, kw_only=True)
class KilledRun:
    """How a process ended (-9 by SIGKILL) and the lines of its log."""

    exit_code: int | None
    log: tuple[str, ...]


def train_until(
    point: Point, encoder: Path, data: TaskData, output: Path, settings: TrainingSettings, *, resume: bool
) -> KilledRun:
    """Train in another process that dies at `point`."""
    lines = output.with_name("log.txt")
    lines.write_text("", encoding="utf-8")
    process = _PROCESSES.Process(target=_train, args=(point, encoder, data, output, settings, resume, lines))
    process.start()
    process.join(timeout=300)
    if process.is_alive():
        process.kill()
        process.join()
    return KilledRun(exit_code=process.exitcode, log=tuple(lines.read_text(encoding="utf-8").splitlines()))


def _train(
    point: Point, encoder: Path, data: TaskData, output: Path, settings: TrainingSettings, resume: bool, lines: Path
) -> None:
    def log(line: str) -> None:
        with lines.open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    point.kill_here()
    train(str(encoder), data, output, settings, resume=resume, log=log)
