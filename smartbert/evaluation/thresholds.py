"""The exit threshold that is sure to change few answers, chosen on texts kept back from training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from smartbert.evaluation.curves import EXIT_THRESHOLDS
from smartbert.evaluation.decisions import Recording, decide
from smartbert_runtime.decisions.policy import Policy


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
    cost; it needs no labels. Learn-then-Test with fixed-sequence testing (Angelopoulos et al., 2021): EXIT_THRESHOLDS
    are tried upwards from 0, each tested by P(Binomial(n, max_disagreement) <= changed) <= 1 - confidence, and the last
    one before the first that fails is taken, so that with probability `confidence` the risk on new texts is within
    `max_disagreement`. 505 texts with at most 1 changed answer vouch for 1 % at 95 %, 2 changed do not.

    Too few texts can vouch for nothing: then the largest threshold that changes no answer is taken, `certain` false.
    """
    full_r = decide(recording, Policy(skip_threshold=skip_threshold, exit_threshold=0.0)).answers_r
    texts = len(full_r)
    possible = _binomial_tail(0, texts, max_disagreement) <= 1.0 - confidence
    chosen = ThresholdChoice(exit_threshold=0.0, texts=texts, changed=0, certain=possible)
    for threshold in EXIT_THRESHOLDS:
        answers_r = decide(recording, Policy(skip_threshold=skip_threshold, exit_threshold=threshold)).answers_r
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
