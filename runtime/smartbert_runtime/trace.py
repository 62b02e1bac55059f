"""What happened to one text on its way through the layers. Shape letters: l layers, c classes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.decisions.rules import RULES, logit, sigmoid

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
    """One layer's decisions; None where the gate or the exit head was not evaluated.

    milliseconds: time of its layer, gate and exit head, for all the texts of the batch that ran them together.
    """

    layer: int
    skipped: bool
    skip_probability: float | None
    uncertainty: float | None
    answered: bool
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One text's path; layers are numbered from 1.

    exit_layer: the layer whose head answered; L when none fired, also when layer L itself was skipped.
    logits_c: that head's logits.
    skip_logit_l: each gate's output, NaN where it was not evaluated.
    uncertainty_l: what the policy's rule measured of each exit head's output, normalized entropy for most; NaN where it
    was not evaluated.
    batch_runs: every call of a part for the text's batch, in order, the tokenizer first; empty where not timed.
    """

    layers_run: tuple[int, ...]
    layers_skipped: tuple[int, ...]
    exit_layer: int
    logits_c: NDArray[np.float32]
    skip_logit_l: NDArray[np.float64]
    uncertainty_l: NDArray[np.float64]
    batch_runs: tuple[PartRun, ...] = ()

    def decisions(self) -> tuple[tuple[int, ...], tuple[int, ...], int]:
        """What "the same decisions" means: layers run, layers skipped, exit layer."""
        return self.layers_run, self.layers_skipped, self.exit_layer

    def margin(self, policy: Policy) -> float:
        """How close the closest decision under `policy` was to turning, by the policy's own rule and thresholds.

        Gates: |skip logit - the threshold's logit|. Exit heads: |uncertainty - threshold|, or for a rule that compares
        labels the gap between the two largest probabilities. Infinite where nothing was decided.
        """
        rule, least = RULES[policy.rule], logit(policy.skip_threshold)
        gates = (abs(value - least) for value in self.skip_logit_l.tolist())
        heads = (
            rule.distance(value, policy.threshold(layer)) for layer, value in enumerate(self.uncertainty_l.tolist(), 1)
        )
        return min((distance for distance in (*gates, *heads) if not math.isnan(distance)), default=math.inf)

    def part_runs(self) -> Iterator[PartRun]:
        """The calls that this text took part in: all of its batch's, except layers that it did not run and later calls.

        A gate or an exit head that was evaluated for other texts only is among them.
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
            skip_logit, uncertainty = self.skip_logit_l[layer - 1], self.uncertainty_l[layer - 1]
            seconds = sum(run.seconds for run in self.part_runs() if run.part.endswith(f"_{layer:02d}"))
            yield Step(
                layer=layer,
                skipped=layer in self.layers_skipped,
                skip_probability=None if np.isnan(skip_logit) else sigmoid(float(skip_logit)),
                uncertainty=None if np.isnan(uncertainty) else float(uncertainty),
                answered=layer == self.exit_layer,
                milliseconds=seconds * 1000.0,
            )
