"""What a model decides about texts it was recorded on: for any exit rule, from one pass with every head asked.

Exits do not change what later layers compute, so one recording holds the answers for every exit threshold and every
patience. Shape letters: r rows (texts), l layers, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.decisions.rules import normalized_entropy


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What every gate and exit head said on the hard-gated way, recorded at one skip threshold.

    A model with one head only, as a plainly fine-tuned one, has NaN logits (which never exit) for the other layers.
    """

    skip_logits_rl: NDArray[np.float32]
    logits_rlc: NDArray[np.float32]
    label_ids_r: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Decisions:
    """Answers (r, label ids), the layer whose head gave each (r, from 1), and the gates' skips (r,l)."""

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
    """The inference rule (Hu et al., IJCAI 2023): the first layer run whose head is sure enough answers."""
    skips_rl = _skips(recording, policy)
    sure_rl = normalized_entropy(recording.logits_rlc) < policy.exit_threshold
    return _first(recording, skips_rl, np.zeros_like(skips_rl) if policy.no_exit else sure_rl)


def decide_by_patience(recording: Recording, policy: Policy, patience: int) -> Decisions:
    """PABEE's rule (Zhou et al., NeurIPS 2020): the first head that is the `patience`-th in a row to agree answers.

    Answers A, B, B, B with patience 1 exit at the third head, with patience 2 at the fourth.
    """
    skips_rl = _skips(recording, policy)
    answers_rl = recording.logits_rlc.argmax(-1)
    agreed_r = np.zeros(len(answers_rl), dtype=np.int64)
    before_r = np.full(len(answers_rl), -1, dtype=np.int64)
    stops_rl = np.zeros_like(skips_rl)
    for layer in range(skips_rl.shape[1]):
        asked_r = ~skips_rl[:, layer]
        same_r = answers_rl[:, layer] == before_r
        agreed_r = np.where(asked_r, np.where(same_r, agreed_r + 1, 0), agreed_r)
        before_r = np.where(asked_r, answers_rl[:, layer], before_r)
        stops_rl[:, layer] = asked_r & (agreed_r >= patience)
    return _first(recording, skips_rl, stops_rl)


def _skips(recording: Recording, policy: Policy) -> NDArray[np.bool_]:
    skips_rl = policy.skips(recording.skip_logits_rl)
    return np.zeros_like(skips_rl) if policy.no_skip else skips_rl


def _first(recording: Recording, skips_rl: NDArray[np.bool_], stops_rl: NDArray[np.bool_]) -> Decisions:
    stops_rl = stops_rl & ~skips_rl
    stops_rl[:, -1] = True
    first_r = stops_rl.argmax(axis=1)
    answers_r = recording.logits_rlc[np.arange(len(first_r)), first_r].argmax(-1)
    return Decisions(answers_r=answers_r, exit_layer_r=first_r + 1, skips_rl=skips_rl)
