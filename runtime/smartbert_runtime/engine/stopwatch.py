"""A stopwatch for the parts that a batch runs: records every call's time and number of rows."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.engine.parts import Parts
from smartbert_runtime.trace import PartRun


class Stopwatch:
    """`Parts` that run others and record when each call started, how long it took, and for how many rows."""

    def __init__(self) -> None:
        self._parts: Parts | None = None
        self._calls: list[tuple[str, float, float, int]] = []

    def wrap(self, parts: Parts) -> Stopwatch:
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
        started = time.perf_counter()
        outputs = self._parts.run(part, feeds)
        self._calls.append((part, started, time.perf_counter() - started, len(next(iter(feeds.values())))))
        return outputs
