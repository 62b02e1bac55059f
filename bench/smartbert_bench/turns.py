"""Processes take turns: one runs while the others are stopped, because onnxruntime's threads go on spinning.

After a run they busy-wait for the next one, for up to a second: on the same cores they would slow down the process
that runs next, most of all on a machine with few cores.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import TypeVar

from smartbert_bench.workers.process import Worker
from smartbert_runtime.errors import ConfigError

T = TypeVar("T")


class Turns:
    """At most one of several workers runs; the others are stopped."""

    def __init__(self) -> None:
        self._running: Worker | None = None

    def give(self, worker: Worker) -> Worker:
        """Stop the worker that is running and resume this one."""
        if worker is not self._running:
            self.end()
            worker.resume()
            self._running = worker
        return worker

    def begin(self, worker: Worker) -> Worker:
        """Stop the worker that is running; this one was just started and runs already."""
        self.end()
        self._running = worker
        return worker

    def end(self) -> None:
        """Stop the worker that is running."""
        if self._running is not None:
            self._running.stop()
        self._running = None


def check_turns(workers: int) -> None:
    """ConfigError for several workers on a system where processes cannot be stopped."""
    if workers > 1 and not hasattr(signal, "SIGSTOP"):
        raise ConfigError(
            "contenders cannot be measured side by side here: this system cannot pause a process",
            hint="name one --layout and one --precision, without --against and --plain-checkpoint",
        )


def in_turn(items: Sequence[T], number: int) -> Sequence[T]:
    """The order of round `number`: forward, then backward, so that none always runs after the same other one."""
    return items if number % 2 == 0 else items[::-1]


def chunks(texts: int, size: int) -> list[range]:
    """Rows in order, `size` per chunk, the last one shorter: 60 in chunks of 25 -> 0-24, 25-49, 50-59."""
    return [range(start, min(start + size, texts)) for start in range(0, texts, size)]
