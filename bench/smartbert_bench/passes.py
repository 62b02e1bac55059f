"""Times passes over the texts, one text at a time and in batches, contenders in turns.

Shape letters: p passes, t texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_bench.contenders.contender import Contender
from smartbert_bench.turns import Turns, chunks, in_turn
from smartbert_bench.workers.process import Worker
from smartbert_bench.workers.protocol import ClassifyRequest
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.text_files.examples import Examples

# Texts per turn: few, so that a disturbance of the machine hits all contenders alike; not so few that resuming a
# process dominates.
CHUNK = 25
# Batches per pass at least, whatever the number of texts: a smaller file is repeated.
MIN_BATCHES = 4


@dataclass(frozen=True, kw_only=True)
class OneByOne:
    """One text at a time: milliseconds of each text in each pass; labels and layers run of the first pass."""

    ms_pt: NDArray[np.float64]
    labels: tuple[str, ...]
    layers_run: tuple[int, ...]


def time_one_by_one(
    contenders: Sequence[Contender],
    workers: Mapping[str, Worker],
    turns: Turns,
    examples: Examples,
    *,
    repeats: int,
    reporter: Reporter = SILENT,
) -> dict[str, OneByOne]:
    """Each contender classifies each text `repeats` times; turns change after every chunk of texts."""
    count = len(examples)
    reporter.step("warming up")
    warm_up_rows = np.linspace(0, count - 1, min(CHUNK, count)).round().astype(int).tolist()
    for contender in contenders:
        turns.give(workers[contender.worker.name]).classify(_request(examples, warm_up_rows, contender, warm_up=0))
    ms = {contender.name: np.zeros((repeats, count)) for contender in contenders}
    labels: dict[str, list[str]] = {contender.name: [] for contender in contenders}
    layers_run: dict[str, list[int]] = {contender.name: [] for contender in contenders}
    for number in range(repeats):
        reporter.step(
            f"pass {number + 1} of {repeats}: {count} texts one by one, {len(contenders)} contenders in turns"
        )
        for turn, rows in enumerate(chunks(count, CHUNK), start=number):
            for contender in in_turn(contenders, turn):
                worker = turns.give(workers[contender.worker.name])
                reply = worker.classify(_request(examples, rows, contender, warm_up=1))
                ms[contender.name][number, rows.start : rows.stop] = reply.ms
                if number == 0:
                    labels[contender.name] += reply.labels
                    layers_run[contender.name] += reply.layers_run or [contender.layers] * len(rows)
    return {
        name: OneByOne(ms_pt=ms[name], labels=tuple(labels[name]), layers_run=tuple(layers_run[name])) for name in ms
    }


def time_batches(
    contenders: Sequence[Contender],
    workers: Mapping[str, Worker],
    turns: Turns,
    examples: Examples,
    *,
    batch_size: int,
    repeats: int,
    reporter: Reporter = SILENT,
) -> dict[str, NDArray[np.float64]]:
    """Contender's name -> texts per second in each pass (p).

    A turn is a whole pass; texts of similar length share a batch.
    """
    copies = math.ceil(MIN_BATCHES * batch_size / len(examples))
    rows = list(range(len(examples))) * copies
    speeds = {contender.name: np.zeros(repeats) for contender in contenders}
    for number in range(repeats):
        reporter.step(f"pass {number + 1} of {repeats}: {len(rows)} texts in batches of {batch_size}")
        for contender in in_turn(contenders, number):
            worker = turns.give(workers[contender.worker.name])
            reply = worker.classify(_request(examples, rows, contender, warm_up=batch_size, batch_size=batch_size))
            speeds[contender.name][number] = len(rows) / (sum(reply.ms) / 1000.0)
    return speeds


def _request(
    examples: Examples, rows: Sequence[int], contender: Contender, *, warm_up: int, batch_size: int = 1
) -> ClassifyRequest:
    return ClassifyRequest(
        texts=tuple(examples.texts[row] for row in rows),
        pairs=examples.pairs and tuple(examples.pairs[row] for row in rows),
        mode=contender.mode,
        batch_size=batch_size,
        warm_up=warm_up,
    )
