"""Whose turn it is. One process runs and the others are stopped, because onnxruntime's threads go on spinning.

After a run they wait busily for the next one, for up to a second: on the same cores, they would slow down whoever
comes next, most of all on a machine with few.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import TypeVar

from smartbert_bench.workers.process import Worker
from smartbert_runtime.errors import ConfigError

T = TypeVar("T")


class Turns:
    """At most one of several workers runs; at the beginning each is stopped."""

    def __init__(self) -> None:
        self._running: Worker | None = None

    def give(self, worker: Worker) -> Worker:
        """Stop the one whose turn it was and let this one run."""
        if worker is not self._running:
            self.end()
            worker.resume()
            self._running = worker
        return worker

    def begin(self, worker: Worker) -> Worker:
        """A worker that was just started, and runs: it is its turn."""
        self.end()
        self._running = worker
        return worker

    def end(self) -> None:
        """Stop the one whose turn it was."""
        if self._running is not None:
            self._running.stop()
        self._running = None


def check_turns(workers: int) -> None:
    """ConfigError where processes cannot be stopped and there are several."""
    if workers > 1 and not hasattr(signal, "SIGSTOP"):
        raise ConfigError(
            "contenders cannot be measured side by side here: this system cannot stop a process for a while",
            hint="name one --layout and one --precision, without --against and --plain-checkpoint",
        )


def in_turn(items: Sequence[T], number: int) -> Sequence[T]:
    """The order of round `number`: there and back, so that nobody always comes after the same other."""
    return items if number % 2 == 0 else items[::-1]


def chunks(texts: int, size: int) -> list[range]:
    """Rows in their order, `size` of them a chunk, the last one shorter: 60 in chunks of 25 -> 0-24, 25-49, 50-59."""
    return [range(start, min(start + size, texts)) for start in range(0, texts, size)]
