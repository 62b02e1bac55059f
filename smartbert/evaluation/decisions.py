"""What a model decides about texts it was recorded on, for any policy, from one pass with every head evaluated.

Shape letters: r rows (texts), l layers, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.decide_recorded import decide_recorded


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What every gate and exit head returned on the hard-gated pass, recorded at one skip threshold.

    A model with one head only, as a plainly fine-tuned one, has NaN logits (which never exit) for the other layers.
    """

    skip_logits_rl: NDArray[np.float32]
    logits_rlc: NDArray[np.float32]
    label_ids_r: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Answers (r, label ids), the layer whose head gave each (r, from 1), and the layers each text skipped (r,l)."""

    answers_r: NDArray[np.int64]
    exit_layer_r: NDArray[np.int64]
    skips_rl: NDArray[np.bool_]

    @property
    def reached_rl(self) -> NDArray[np.bool_]:
        """Layers up to the exit."""
        reached: NDArray[np.bool_] = np.arange(1, self.skips_rl.shape[1] + 1) <= self.exit_layer_r[:, None]
        return reached

    @property
    def layers_run_r(self) -> NDArray[np.int64]:
        """How many layers each text was run through."""
        run: NDArray[np.int64] = (self.reached_rl & ~self.skips_rl).sum(axis=1)
        return run


def decide(recording: Recording, policy: Policy) -> Decisions:
    """The decisions of the engine itself under the whole policy; ConfigError for a deadline."""
    decided = decide_recorded(recording.skip_logits_rl, recording.logits_rlc, policy)
    return Decisions(
        answers_r=decided.logits_bc.argmax(axis=-1),
        exit_layer_r=decided.exit_layer_b,
        skips_rl=decided.skipped_bl,
    )
