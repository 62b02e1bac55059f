"""A stopwatch around the parts of a batch."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.engine import Parts
from smartbert_runtime.trace import PartRun


class Timed:
    """Parts that note when they ran, for how long, and for how many of the batch's rows."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.runs: list[PartRun] = []

    def run(self, part: str, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        """The part's outputs."""
        started = time.perf_counter()
        outputs = self._parts.run(part, feeds)
        seconds = time.perf_counter() - started
        rows = len(next(iter(feeds.values())))
        self.runs.append(PartRun(part=part, started=started, seconds=seconds, rows=rows))
        return outputs
