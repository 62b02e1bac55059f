"""How good and how deep: decisions for any threshold from one recorded pass over labelled texts.

Shape letters: r rows (texts), l layers, c classes. Exits do not change what later layers compute, so one pass with
every head asked holds the answers for every exit threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.policy import Policy, normalised_entropy

# Candidate exit thresholds: normalised entropies from "never" to "always".
THRESHOLDS = tuple(round(step * 0.01, 2) for step in range(101))


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What every gate and exit head said on the hard-gated way, recorded at one skip threshold."""

    skip_logits_rl: NDArray[np.float32]
    logits_rlc: NDArray[np.float32]
    label_ids_r: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Quality and depth over a set of texts; rates are shares of all texts, layer by layer."""

    texts: int
    accuracy: float
    recall: dict[str, float]
    mean_layers_run: float
    skip_rate: tuple[float, ...]
    exit_rate: tuple[float, ...]
    exit_accuracy: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What one exit threshold gives."""

    exit_threshold: float
    accuracy: float
    mean_layers_run: float


def summarise(recording: Recording, policy: Policy, labels: Sequence[str]) -> Summary:
    """Accuracy, recall of each label, layers run, and per layer the skip rate, exit rate and its head's own accuracy.

    Skips and exits are counted for the texts that reach the layer, as a share of all texts.
    """
    answers_r, exit_layer_r, skips_rl = _decide(recording, policy)
    layers = recording.skip_logits_rl.shape[1]
    reached_rl = np.arange(1, layers + 1) <= exit_layer_r[:, None]
    right_r = answers_r == recording.label_ids_r
    right_rl = recording.logits_rlc.argmax(-1) == recording.label_ids_r[:, None]
    recall = {
        label: float(right_r[recording.label_ids_r == number].mean())
        for number, label in enumerate(labels)
        if (recording.label_ids_r == number).any()
    }
    return Summary(
        texts=len(right_r),
        accuracy=float(right_r.mean()),
        recall=recall,
        mean_layers_run=float((reached_rl & ~skips_rl).sum(axis=1).mean()),
        skip_rate=tuple((reached_rl & skips_rl).mean(axis=0).tolist()),
        exit_rate=tuple((exit_layer_r[:, None] == np.arange(1, layers + 1)).mean(axis=0).tolist()),
        exit_accuracy=tuple(right_rl.mean(axis=0).tolist()),
    )


def curve(recording: Recording, skip_threshold: float) -> tuple[CurvePoint, ...]:
    """Accuracy and mean layers run at every threshold of THRESHOLDS."""
    points = []
    for threshold in THRESHOLDS:
        policy = Policy(skip_threshold=skip_threshold, exit_threshold=threshold)
        answers_r, exit_layer_r, skips_rl = _decide(recording, policy)
        reached_rl = np.arange(1, skips_rl.shape[1] + 1) <= exit_layer_r[:, None]
        points.append(
            CurvePoint(
                exit_threshold=threshold,
                accuracy=float((answers_r == recording.label_ids_r).mean()),
                mean_layers_run=float((reached_rl & ~skips_rl).sum(axis=1).mean()),
            )
        )
    return tuple(points)


@dataclass(frozen=True, kw_only=True)
class ThresholdChoice:
    """The exit threshold chosen, how many of the texts it gives another answer, and whether the bound is certain."""

    exit_threshold: float
    texts: int
    changed: int
    certain: bool


def choose_exit_threshold(
    recording: Recording, skip_threshold: float, *, max_disagreement: float, confidence: float
) -> ThresholdChoice:
    """The largest exit threshold that is sure to change few answers.

    Risk: the share of texts whose answer differs from full depth's, an upper bound of the accuracy that exits can
    cost; it needs no labels. Learn-then-Test with fixed-sequence testing (Angelopoulos et al., 2021): thresholds are
    tried upwards from 0, each tested by P(Binomial(n, max_disagreement) <= changed) <= 1 - confidence, and the last
    one before the first that fails is taken, so that with probability `confidence` the risk on new texts is within
    `max_disagreement`. 505 texts with at most 1 changed answer vouch for 1 % at 95 %, 2 changed do not.

    Too few texts can vouch for nothing: then the largest threshold that changes no answer is taken, `certain` false.
    """
    full_r = _decide(recording, Policy(skip_threshold=skip_threshold, exit_threshold=0.0))[0]
    texts = len(full_r)
    possible = _binomial_tail(0, texts, max_disagreement) <= 1.0 - confidence
    chosen = ThresholdChoice(exit_threshold=0.0, texts=texts, changed=0, certain=possible)
    for threshold in THRESHOLDS:
        answers_r = _decide(recording, Policy(skip_threshold=skip_threshold, exit_threshold=threshold))[0]
        changed = int((answers_r != full_r).sum())
        passes = _binomial_tail(changed, texts, max_disagreement) <= 1.0 - confidence if possible else changed == 0
        if not passes:
            break
        chosen = ThresholdChoice(exit_threshold=threshold, texts=texts, changed=changed, certain=possible)
    return chosen


def _binomial_tail(count: int, trials: int, probability: float) -> float:
    """P(Binomial(trials, probability) <= count)."""
    if probability in (0.0, 1.0):
        return 1.0 if probability == 0.0 or count >= trials else 0.0
    logs = (
        math.lgamma(trials + 1)
        - math.lgamma(hits + 1)
        - math.lgamma(trials - hits + 1)
        + hits * math.log(probability)
        + (trials - hits) * math.log1p(-probability)
        for hits in range(count + 1)
    )
    return math.fsum(math.exp(log) for log in logs)


def _decide(recording: Recording, policy: Policy) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Answers (r), exit layers (r, from 1) and skips (r,l) by the inference rule."""
    skips_rl = policy.skips(recording.skip_logits_rl)
    exits_rl = (normalised_entropy(recording.logits_rlc) < policy.exit_threshold) & ~skips_rl
    exits_rl[:, -1] = True
    first_r = exits_rl.argmax(axis=1)
    answers_r = recording.logits_rlc[np.arange(len(first_r)), first_r].argmax(-1)
    return answers_r, first_r + 1, skips_rl
