"""How long a fresh process takes: from its start to its first answer, and from the files to ready."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smartbert_bench.contenders.contender import Contender
from smartbert_bench.turns import in_turn
from smartbert_bench.workers.process import Worker
from smartbert_bench.workers.protocol import Ask
from smartbert_runtime.text_files.examples import Examples


@dataclass(frozen=True, kw_only=True)
class Starts:
    """Seconds, one a start; without any, only the one time that it was loaded to be measured."""

    first_answer_seconds: tuple[float, ...] = ()
    load_seconds: tuple[float, ...]


def measure_starts(
    contenders: Sequence[Contender], examples: Examples, *, starts: int, threads: int, say: Callable[[str], None]
) -> dict[str, Starts]:
    """Start every contender `starts` times, in turns, one process at a time; contender's name -> its seconds."""
    taken: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for number in range(starts):
        for contender in in_turn(contenders, number):
            say(f"start {number + 1} of {starts}: {contender.name}")
            taken[contender.name].append(_start(contender, examples, threads))
    return {
        name: Starts(
            first_answer_seconds=tuple(first for first, _ in pairs), load_seconds=tuple(load for _, load in pairs)
        )
        for name, pairs in taken.items()
    }


def _start(contender: Contender, examples: Examples, threads: int) -> tuple[float, float]:
    """Seconds from the process's start to its answer, and those that loading takes.

    A package loads a graph when a text first needs it, as `SmartBert.load` does. After its answer each contender loads
    everything once more: that is the load time, without Python's start and imports.
    """
    asked = Ask(
        texts=examples.texts[:1],
        pairs=examples.pairs and examples.pairs[:1],
        way=contender.way,
        batch_size=1,
        wake=0,
    )
    started = time.perf_counter()
    with Worker(contender.worker, threads=threads) as worker:
        worker.open(preload=False)
        worker.answer(asked)
        first = time.perf_counter() - started
        return first, worker.open(preload=True).load_seconds
