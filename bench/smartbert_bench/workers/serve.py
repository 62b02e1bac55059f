"""What runs in a contender's process: a loop that reads a question, does it, times it and replies.

A runner's module ends in `serve(open_runner)` and is started as `python -m MODULE`. It imports what its contender
needs and nothing else, so that start-up and memory are the contender's own.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, Protocol

from smartbert_bench.workers.memory import weigh
from smartbert_bench.workers.protocol import Answered, Ask, Open, Opened, Reply, Weigh, read_question, write_reply
from smartbert_runtime.errors import BenchError, SmartBertError

_PR_SET_PDEATHSIG = 1


class Runner(Protocol):
    """A contender that is loaded and answers."""

    @property
    def versions(self) -> Mapping[str, str]:
        """The libraries that it answers with."""
        ...

    def answer(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, way: str, batch_size: int
    ) -> tuple[list[str], list[int] | None]:
        """One label a text in the order given, and how many layers each took; None where all are run always."""
        ...


OpenRunner = Callable[[Mapping[str, object], bool], Runner]


def serve(open_runner: OpenRunner) -> None:
    """Answer questions from standard input until it ends; replies go to what was standard output."""
    _end_with_the_parent()
    replies = _own_stdout()
    runner: Runner | None = None
    for line in sys.stdin.buffer:
        question = read_question(line)
        reply: Reply | BenchError
        try:
            if isinstance(question, Open):
                started = time.perf_counter()
                opened = open_runner(question.spec, question.preload)
                seconds = time.perf_counter() - started
                runner = opened  # the one before goes only now, outside the time
                reply = Opened(load_seconds=seconds, versions=dict(runner.versions))
            elif isinstance(question, Weigh):
                reply = weigh()
            else:
                assert runner is not None  # the first question is always Open
                reply = _ask(runner, question)
        except SmartBertError as err:
            reply = BenchError(str(err), hint=err.hint)
        replies.write(write_reply(reply))
        replies.flush()


def _ask(runner: Runner, asked: Ask) -> Answered:
    calls = [slice(None)] if asked.batch_size > 1 else [slice(row, row + 1) for row in range(len(asked.texts))]
    if asked.wake:
        _time(runner, asked, slice(asked.wake))
    labels: list[str] = []
    layers_run: list[int] = []
    ms = []
    for rows in calls:
        found, layers, spent = _time(runner, asked, rows)
        labels += found
        layers_run += layers or []
        ms.append(spent)
    return Answered(labels=tuple(labels), layers_run=tuple(layers_run) or None, ms=tuple(ms))


def _time(runner: Runner, asked: Ask, rows: slice) -> tuple[list[str], list[int] | None, float]:
    """Labels, layers run, and the milliseconds of the call."""
    texts, pairs = asked.texts[rows], asked.pairs and asked.pairs[rows]
    started = time.perf_counter()
    labels, layers_run = runner.answer(texts, pairs, way=asked.way, batch_size=asked.batch_size)
    return labels, layers_run, (time.perf_counter() - started) * 1000.0


def _own_stdout() -> BinaryIO:
    """Standard output for replies alone: whatever a library prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def _end_with_the_parent() -> None:
    """Linux: be killed when the parent dies. One that is stopped would not notice the end of its standard input."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
