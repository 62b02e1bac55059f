"""What an engine takes and returns: parts that are run by name, and one text's outcome."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.trace import Trace


class Parts(Protocol):
    """Anything that runs a part by name: `Sessions` on a device, the torch model in a test."""

    def run(self, part: str, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        """The part's outputs, in the manifest's order."""
        ...


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One text's trace, and the time from the start of its batch to its answer, in seconds."""

    trace: Trace
    seconds: float
