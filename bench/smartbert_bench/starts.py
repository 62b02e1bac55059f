"""Times fresh processes: from the start to the first answer, and how long loading takes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from smartbert_bench.contenders.contender import Contender
from smartbert_bench.turns import in_turn
from smartbert_bench.workers.process import Worker
from smartbert_bench.workers.protocol import ClassifyRequest
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.text_files.examples import Examples


@dataclass(frozen=True, kw_only=True)
class StartTimes:
    """Seconds, one entry per start; without starts, only how long the measured process took to load."""

    first_answer_seconds: tuple[float, ...] = ()
    load_seconds: tuple[float, ...]


def time_starts(
    contenders: Sequence[Contender],
    examples: Examples,
    *,
    starts: int,
    threads: int,
    reporter: Reporter = SILENT,
) -> dict[str, StartTimes]:
    """Start every contender `starts` times, in turns, one process at a time; contender's name -> its seconds."""
    times: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number in range(starts):
        for contender in in_turn(contenders, number):
            reporter.step(f"start {number + 1} of {starts}: {contender.name}")
            times[contender.name].append(_time_start(contender, examples, threads))
    return {
        name: StartTimes(
            first_answer_seconds=tuple(first for first, _ in pairs), load_seconds=tuple(load for _, load in pairs)
        )
        for name, pairs in times.items()
    }


def _time_start(contender: Contender, examples: Examples, threads: int) -> tuple[float, float]:
    """Seconds from the process's start to its first answer, and seconds of loading.

    A package loads a graph when a text first needs it, as `SmartBert.load` does. After its answer each contender loads
    everything once more: that is the load time, without Python's start and imports.
    """
    request = ClassifyRequest(
        texts=examples.texts[:1],
        pairs=examples.pairs and examples.pairs[:1],
        mode=contender.mode,
        batch_size=1,
        warm_up=0,
    )
    started = time.perf_counter()
    with Worker(contender.worker, threads=threads) as worker:
        worker.load(preload=False)
        worker.classify(request)
        first = time.perf_counter() - started
        return first, worker.load(preload=True).load_seconds
