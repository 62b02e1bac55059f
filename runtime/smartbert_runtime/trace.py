"""What happened to one text on its way through the layers. Shape letters: l layers, c classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.policy import logit, sigmoid


@dataclass(frozen=True, kw_only=True)
class Step:
    """One layer's decisions; None where the gate or the exit head was not asked."""

    layer: int
    skipped: bool
    skip_probability: float | None
    entropy: float | None
    answered: bool


@dataclass(frozen=True, kw_only=True)
class Trace:
    """One text's way: layers are numbered from 1.

    exit_layer: the layer whose head answered; L when none fired, also when layer L itself was skipped.
    logits_c: that head's logits.
    skip_logit_l, entropy_l: what each gate and exit head said, NaN where it was not asked.
    """

    layers_run: tuple[int, ...]
    layers_skipped: tuple[int, ...]
    exit_layer: int
    logits_c: NDArray[np.float32]
    skip_logit_l: NDArray[np.float64]
    entropy_l: NDArray[np.float64]

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

    def steps(self) -> Iterator[Step]:
        """Layer by layer, as a person would follow it."""
        for layer in sorted(self.layers_run + self.layers_skipped):
            skip_logit, entropy = self.skip_logit_l[layer - 1], self.entropy_l[layer - 1]
            yield Step(
                layer=layer,
                skipped=layer in self.layers_skipped,
                skip_probability=None if np.isnan(skip_logit) else sigmoid(float(skip_logit)),
                entropy=None if np.isnan(entropy) else float(entropy),
                answered=layer == self.exit_layer,
            )
