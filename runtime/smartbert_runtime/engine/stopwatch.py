"""A stopwatch for the parts that a batch runs: records every call's time and number of rows, loading apart."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.engine.parts import Parts
from smartbert_runtime.trace import PartRun


class LoadedParts(Parts, Protocol):
    """Parts that have to be loaded before they run."""

    def load(self, part: str) -> bool:
        """Load the part unless it is loaded; whether it had to be."""
        ...


class Stopwatch:
    """`Parts` that run others and record when each call started, how long it took, and for how many rows.

    Loading a part and warming it up before its first call are no part of the call.
    """

    def __init__(self) -> None:
        self._parts: LoadedParts | None = None
        self._calls: list[tuple[str, float, float, int]] = []
        self._loads: list[tuple[float, float]] = []  # when it ended, and how long it took

    def wrap(self, parts: LoadedParts) -> Stopwatch:
        """This stopwatch, which from now on runs these parts."""
        self._parts = parts
        return self

    @property
    def runs(self) -> tuple[PartRun, ...]:
        """Every call so far."""
        return tuple(
            PartRun(part=part, started=started, seconds=seconds, rows=rows)
            for part, started, seconds, rows in self._calls
        )

    def run(self, part: str, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        """The part's outputs."""
        assert self._parts is not None
        began = time.perf_counter()
        if self._parts.load(part):
            self._parts.run(part, feeds)  # warm-up: a session's first run allocates and is several times slower
            self._loads.append((time.perf_counter(), time.perf_counter() - began))
        started = time.perf_counter()
        outputs = self._parts.run(part, feeds)
        self._calls.append((part, started, time.perf_counter() - started, len(next(iter(feeds.values())))))
        return outputs

    def loading_seconds(self, until: float) -> float:
        """Seconds spent on loading and warming up, up to a time of `time.perf_counter`."""
        return sum(seconds for ended, seconds in self._loads if ended <= until)
