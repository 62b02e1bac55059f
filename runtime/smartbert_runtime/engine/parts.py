"""What an engine needs and gives: parts that are run by name, and one text's outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.trace import Trace


class Parts(Protocol):
    """Whatever runs a part by name: `Sessions` on a device, another runner in a test."""

    def run(self, part: str, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        """The part's outputs."""
        ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One text's trace, and when its answer stood, in seconds since the engine began the batch."""

    trace: Trace
    seconds: float
