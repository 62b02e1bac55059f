"""The loop of a contender's process: reads a request, carries it out, times it, replies.

A runner's module ends in `serve(load_runner)` and is started as `python -m MODULE`. It imports what its contender
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

from smartbert_bench.workers.memory import process_memory
from smartbert_bench.workers.protocol import (
    ClassifyReply,
    ClassifyRequest,
    LoadReply,
    LoadRequest,
    MemoryRequest,
    Reply,
    read_request,
    write_reply,
)
from smartbert_runtime.errors import BenchError, SmartBertError

_PR_SET_PDEATHSIG = 1


class Runner(Protocol):
    """A contender that is loaded and classifies."""

    @property
    def versions(self) -> Mapping[str, str]:
        """The libraries that it uses, with their versions."""
        ...

    def classify(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, mode: str, batch_size: int
    ) -> tuple[list[str], list[int] | None]:
        """One label per text in the order given, and how many layers each ran; None where every layer always runs."""
        ...


LoadRunner = Callable[[Mapping[str, object], bool], Runner]


def serve(load_runner: LoadRunner) -> None:
    """Carry out requests from standard input until it ends; replies go to what was standard output."""
    _die_with_parent()
    replies = _take_stdout()
    runner: Runner | None = None
    for line in sys.stdin.buffer:
        request = read_request(line)
        reply: Reply | BenchError
        try:
            if isinstance(request, LoadRequest):
                started = time.perf_counter()
                loaded = load_runner(request.spec, request.preload)
                seconds = time.perf_counter() - started
                runner = loaded  # releases the previous one only now, outside the timed region
                reply = LoadReply(load_seconds=seconds, versions=dict(runner.versions))
            elif isinstance(request, MemoryRequest):
                reply = process_memory()
            else:
                assert runner is not None  # the first request is always LoadRequest
                reply = _classify(runner, request)
        except SmartBertError as err:
            reply = BenchError(str(err), hint=err.hint)
        replies.write(write_reply(reply))
        replies.flush()


def _classify(runner: Runner, request: ClassifyRequest) -> ClassifyReply:
    calls = [slice(None)] if request.batch_size > 1 else [slice(row, row + 1) for row in range(len(request.texts))]
    if request.warm_up:
        _timed_call(runner, request, slice(request.warm_up))
    labels: list[str] = []
    layers_run: list[int] = []
    ms = []
    for rows in calls:
        call_labels, call_layers, call_ms = _timed_call(runner, request, rows)
        labels += call_labels
        layers_run += call_layers or []
        ms.append(call_ms)
    return ClassifyReply(labels=tuple(labels), layers_run=tuple(layers_run) or None, ms=tuple(ms))


def _timed_call(runner: Runner, request: ClassifyRequest, rows: slice) -> tuple[list[str], list[int] | None, float]:
    """Labels, layers run, and the milliseconds of the call."""
    texts, pairs = request.texts[rows], request.pairs and request.pairs[rows]
    started = time.perf_counter()
    labels, layers_run = runner.classify(texts, pairs, mode=request.mode, batch_size=request.batch_size)
    return labels, layers_run, (time.perf_counter() - started) * 1000.0


def _take_stdout() -> BinaryIO:
    """Reserve standard output for replies: whatever a library prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def _die_with_parent() -> None:
    """Linux: be killed when the parent dies. A stopped process would not notice the end of its standard input."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
