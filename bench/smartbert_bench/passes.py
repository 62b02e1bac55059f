"""Answers and times: passes over the texts, one by one and in batches, contenders in turns.

Shape letters: p passes, t texts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_bench.contenders.contender import Contender
from smartbert_bench.turns import Turns, chunks, in_turn
from smartbert_bench.workers.process import Worker
from smartbert_bench.workers.protocol import Ask
from smartbert_runtime.text_files.examples import Examples

# Texts a turn: few, so that whoever disturbs the machine disturbs all alike; not so few that waking up is most of it.
CHUNK = 25
# Batches of one pass at least, whatever the number of texts: a smaller file is repeated.
BATCHES = 4


@dataclass(frozen=True, kw_only=True)
class Singles:
    """One text at a time: milliseconds of each text in each pass; answers and depth of the first pass."""

    ms_pt: NDArray[np.float64]
    labels: tuple[str, ...]
    layers_run: tuple[int, ...]


def measure_singles(
    contenders: Sequence[Contender],
    workers: Mapping[str, Worker],
    turns: Turns,
    examples: Examples,
    *,
    repeats: int,
    say: Callable[[str], None],
) -> dict[str, Singles]:
    """Each contender answers each text `repeats` times; turns change after every chunk of texts."""
    count = len(examples)
    say("warming up")
    spread = np.linspace(0, count - 1, min(CHUNK, count)).round().astype(int).tolist()
    for contender in contenders:
        turns.give(workers[contender.worker.name]).answer(_ask(examples, spread, contender, wake=0))
    ms = {contender.name: np.zeros((repeats, count)) for contender in contenders}
    labels: dict[str, list[str]] = {contender.name: [] for contender in contenders}
    depths: dict[str, list[int]] = {contender.name: [] for contender in contenders}
    for number in range(repeats):
        say(f"pass {number + 1} of {repeats}: {count} texts one by one, {len(contenders)} contenders in turns")
        for turn, rows in enumerate(chunks(count, CHUNK), start=number):
            for contender in in_turn(contenders, turn):
                worker = turns.give(workers[contender.worker.name])
                found = worker.answer(_ask(examples, rows, contender, wake=1))
                ms[contender.name][number, rows.start : rows.stop] = found.ms
                if number == 0:
                    labels[contender.name] += found.labels
                    depths[contender.name] += found.layers_run or [contender.layers] * len(rows)
    return {name: Singles(ms_pt=ms[name], labels=tuple(labels[name]), layers_run=tuple(depths[name])) for name in ms}


def measure_batches(
    contenders: Sequence[Contender],
    workers: Mapping[str, Worker],
    turns: Turns,
    examples: Examples,
    *,
    batch_size: int,
    repeats: int,
    say: Callable[[str], None],
) -> dict[str, NDArray[np.float64]]:
    """Contender's name -> texts per second in each pass; a pass is a turn, texts of like length share a batch."""
    copies = math.ceil(BATCHES * batch_size / len(examples))
    rows = list(range(len(examples))) * copies
    speeds = {contender.name: np.zeros(repeats) for contender in contenders}
    for number in range(repeats):
        say(f"pass {number + 1} of {repeats}: {len(rows)} texts in batches of {batch_size}")
        for contender in in_turn(contenders, number):
            worker = turns.give(workers[contender.worker.name])
            found = worker.answer(_ask(examples, rows, contender, wake=batch_size, batch_size=batch_size))
            speeds[contender.name][number] = len(rows) / (sum(found.ms) / 1000.0)
    return speeds


def _ask(examples: Examples, rows: Sequence[int], contender: Contender, *, wake: int, batch_size: int = 1) -> Ask:
    return Ask(
        texts=tuple(examples.texts[row] for row in rows),
        pairs=examples.pairs and tuple(examples.pairs[row] for row in rows),
        way=contender.way,
        batch_size=batch_size,
        wake=wake,
    )
