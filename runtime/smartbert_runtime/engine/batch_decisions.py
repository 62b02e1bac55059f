"""What has been decided about each row of a batch so far, as arrays; at the end, one outcome a row.

Shape letters: b batch, c classes, l layers.
"""

from __future__ import annotations

import time

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.engine.parts import Outcome
from smartbert_runtime.trace import Trace


class BatchDecisions:
    """Decisions and evaluated numbers, (b,l) and (b,c), NaN where not evaluated; layer i stands in column i - 1."""

    def __init__(self, batch: int, layers: int, classes: int, started: float) -> None:
        self.started = started
        self.run_bl = np.zeros((batch, layers), dtype=bool)
        self.skipped_bl = np.zeros((batch, layers), dtype=bool)
        self.skip_logit_bl = np.full((batch, layers), np.nan)
        self.uncertainty_bl = np.full((batch, layers), np.nan)
        self.logits_bc = np.zeros((batch, classes), dtype=np.float32)
        self.exit_layer_b = np.zeros(batch, dtype=np.int64)
        self.seconds_b = np.zeros(batch)

    def answer(self, rows: NDArray[np.int64], logits_bc: NDArray[np.float32], layer: int) -> None:
        """Record the answers of these rows, given by the head after `layer`."""
        self.logits_bc[rows] = logits_bc
        self.exit_layer_b[rows] = layer
        self.seconds_b[rows] = time.perf_counter() - self.started

    def outcomes(self) -> list[Outcome]:
        """One outcome a row, in the batch's order."""
        run, skipped = _layers(self.run_bl), _layers(self.skipped_bl)
        exit_layer, seconds = self.exit_layer_b.tolist(), self.seconds_b.tolist()
        return [
            Outcome(
                trace=Trace(
                    layers_run=run[row],
                    layers_skipped=skipped[row],
                    exit_layer=exit_layer[row],
                    logits_c=self.logits_bc[row],
                    skip_logit_l=self.skip_logit_bl[row],
                    uncertainty_l=self.uncertainty_bl[row],
                ),
                seconds=seconds[row],
            )
            for row in range(len(exit_layer))
        ]


def _layers(marked_bl: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """For each row the marked layers, numbered from 1."""
    return [tuple(layer for layer, marked in enumerate(row, start=1) if marked) for row in marked_bl.tolist()]
