"""What happened to one text on its way through the layers. Shape letters: l layers, c classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import logit, sigmoid

TOKENIZER = "tokenizer"


@dataclass(frozen=True, kw_only=True, slots=True)
class PartRun:
    """One call of a part: when it began by `time.perf_counter`, how long it took, for how many texts of the batch."""

    part: str
    started: float
    seconds: float
    rows: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """One layer's decisions; None where the gate or the exit head was not asked.

    milliseconds: what its layer, gate and exit head took, for all the texts that they were run for together.
    """

    layer: int
    skipped: bool
    skip_probability: float | None
    entropy: float | None
    answered: bool
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One text's way: layers are numbered from 1.

    exit_layer: the layer whose head answered; L when none fired, also when layer L itself was skipped.
    logits_c: that head's logits.
    skip_logit_l, entropy_l: what each gate and exit head said, NaN where it was not asked.
    batch_runs: every call of a part for the text's batch, in order, the tokenizer first; empty where nobody measured.
    """

    layers_run: tuple[int, ...]
    layers_skipped: tuple[int, ...]
    exit_layer: int
    logits_c: NDArray[np.float32]
    skip_logit_l: NDArray[np.float64]
    entropy_l: NDArray[np.float64]
    batch_runs: tuple[PartRun, ...] = ()

    def decisions(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """What "the same decisions" means: layers run, layers skipped, exit layer."""
        return self.layers_run, self.layers_skipped, self.exit_layer

    def margin(self, *, skip_threshold: float, exit_threshold: float) -> float:
        """Distance of the closest call to its threshold: skip logits to the threshold's logit, entropies to theirs.

        Infinite when nothing was asked. An exit threshold of 0 decides nothing: no entropy is below it.
        """
        skips_l = np.abs(self.skip_logit_l - logit(skip_threshold))
        exits_l = np.abs(self.entropy_l - exit_threshold) if exit_threshold > 0.0 else np.array([])
        distances = np.concatenate([skips_l, exits_l])
        distances = distances[~np.isnan(distances)]
        return float(distances.min()) if distances.size else float("inf")

    def part_runs(self) -> Iterator[PartRun]:
        """The calls that this text took part in: all of its batch's, but for layers it did not run and what came later.

        A gate or an exit head that was asked about other texts only is among them.
        """
        for run in self.batch_runs:
            role, _, number = run.part.rpartition("_")
            if not role or (
                int(number) in self.layers_run if role in ("layer", "block") else int(number) <= self.exit_layer
            ):
                yield run

    def steps(self) -> Iterator[Step]:
        """Layer by layer, as a person would follow it."""
        for layer in sorted(self.layers_run + self.layers_skipped):
            skip_logit, entropy = self.skip_logit_l[layer - 1], self.entropy_l[layer - 1]
            seconds = sum(run.seconds for run in self.part_runs() if run.part.endswith(f"_{layer:02d}"))
            yield Step(
                layer=layer,
                skipped=layer in self.layers_skipped,
                skip_probability=None if np.isnan(skip_logit) else sigmoid(float(skip_logit)),
                entropy=None if np.isnan(entropy) else float(entropy),
                answered=layer == self.exit_layer,
                milliseconds=seconds * 1000.0,
            )
