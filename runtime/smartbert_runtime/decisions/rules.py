"""When a layer is skipped and when an exit head's answer is good enough: the comparisons.

A new exit rule is a function here, an entry in RULES, and a test. Every threshold goes from 0 (never) to 1.

Exits compare strictly (uncertainty < threshold), skips do not (skip logit >= the threshold's logit), everywhere.
These places compute the same in another way, and may differ by 1e-6, so that a decision can differ only where it is
closer than DECISION_MARGIN (1e-4, parity/compare.py) to its threshold:
- `normalized_entropy_of_one`, and `skips_one` and `exits_one` in policy.py: one row without numpy's price (to 1e-12);
- the graph of the layout `single`, in float32 (smartbert_export/graphs/single_graph.py);
- PyTorch's `layer_steps`, which compares skip logits in float32 (smartbert/modeling.py).
Shape letters: b batch, c classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def logit(probability: float) -> float:
    """The value whose sigmoid is `probability`; 0 -> -inf, 1 -> +inf."""
    if probability <= 0.0:
        return -math.inf
    if probability >= 1.0:
        return math.inf
    return math.log(probability / (1.0 - probability))


def sigmoid(value: float) -> float:
    """The probability whose logit is `value`, without overflow."""
    return 0.5 * (1.0 + math.tanh(0.5 * value))


def should_skip(skip_logit_b: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Rows whose layer can be skipped: sigmoid(skip_logit) >= threshold.

    Compared as logits, because a sigmoid saturates to exactly 1.0 in float32: [-3.0, 0.4] at 0.5 -> [False, True].
    """
    skip: NDArray[np.bool_] = skip_logit_b.astype(np.float64) >= logit(threshold)
    return skip


def softmax(logits_bc: NDArray[np.float32]) -> NDArray[np.float64]:
    """Class probabilities in double precision, so that every side that decides decides alike."""
    shifted = logits_bc.astype(np.float64) - logits_bc.max(axis=-1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: NDArray[np.float64] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def normalized_entropy(logits_bc: NDArray[np.float32]) -> NDArray[np.float64]:
    """Uncertainty of each row, from 0 (sure) to 1 (uniform): natural-log entropy divided by ln c.

    The SmartBERT paper thresholds plain entropy, whose maximum is ln c; divide its thresholds by ln c (0.693 for
    two classes) to use them here.
    """
    if logits_bc.shape[:-1] == (1,):
        return np.array([normalized_entropy_of_one(logits_bc[0].tolist())])
    probabilities_bc = softmax(logits_bc)
    entropy_b = -(probabilities_bc * np.log(np.maximum(probabilities_bc, 1e-300))).sum(axis=-1)
    # Rounded, so that rounding errors make no uniform row a little less or more than 1, and no sure row -0.0.
    normalized: NDArray[np.float64] = np.round(entropy_b / math.log(logits_bc.shape[-1]), 12).clip(0.0, 1.0) + 0.0
    return normalized


def normalized_entropy_of_one(logits: Sequence[float]) -> float:
    """`normalized_entropy` of one row, step by step: numpy's ten calls take four times as long on one row."""
    largest = max(logits)
    exponentials = [math.exp(logit - largest) for logit in logits]
    total = math.fsum(exponentials)
    if not math.isfinite(total):
        return math.nan
    parts = (exponential / total for exponential in exponentials)
    entropy = -math.fsum(part * math.log(max(part, 1e-300)) for part in parts)
    return min(max(round(entropy / math.log(len(logits)) * 1e12) / 1e12, 0.0), 1.0) + 0.0


def doubt(logits_bc: NDArray[np.float32]) -> NDArray[np.float64]:
    """What the largest probability p lacks of 1, from 0 (sure) to 1 (uniform): (1 - p) c / (c - 1).

    Two classes at p = 0.9 -> 0.2.
    """
    classes = logits_bc.shape[-1]
    lacking: NDArray[np.float64] = (1.0 - softmax(logits_bc).max(axis=-1)) * classes / (classes - 1)
    return np.round(lacking, 12).clip(0.0, 1.0) + 0.0


def label_doubt(logits_bc: NDArray[np.float32]) -> NDArray[np.float64]:
    """How close the two largest probabilities are, from 0 (one label has it all) to 1 (a tie): 1 - (p1 - p2)."""
    first_two_b2 = np.partition(softmax(logits_bc), -2, axis=-1)[:, -2:]
    closeness: NDArray[np.float64] = 1.0 - (first_two_b2[:, 1] - first_two_b2[:, 0])
    return closeness


class History:
    """What earlier exit heads returned for each row: how often in a row they agreed, and how often they were sure."""

    def __init__(self, batch: int) -> None:
        self.label_b = np.full(batch, -1, dtype=np.int64)
        self.agreed_b = np.zeros(batch, dtype=np.int64)
        self.sure_b = np.zeros(batch, dtype=np.int64)

    def update(
        self,
        evaluated: NDArray[np.bool_],
        logits_bc: NDArray[np.float32],
        uncertainty_b: NDArray[np.float64],
        threshold: float,
    ) -> None:
        """Count one head's output for the rows in `evaluated`; the others stay as they are."""
        label_b = logits_bc.argmax(axis=-1)
        self.agreed_b[evaluated] = np.where(label_b == self.label_b[evaluated], self.agreed_b[evaluated] + 1, 0)
        self.label_b[evaluated] = label_b
        self.sure_b[evaluated] = np.where(uncertainty_b < threshold, self.sure_b[evaluated] + 1, 0)

    def keep(self, stays: NDArray[np.bool_]) -> None:
        """Drop the other rows, which have left."""
        self.label_b, self.agreed_b, self.sure_b = self.label_b[stays], self.agreed_b[stays], self.sure_b[stays]


@dataclass(frozen=True, kw_only=True)
class HeadOutputs:
    """What a rule decides from: the rows whose exit head has just been evaluated.

    uncertainty_b: the rule's own measure of them. threshold: what it must stay below.
    agreed_b: how many heads in a row have repeated the label of the one before; sure_b: how many in a row were below
    the threshold; both count this head, and are None for a rule without memory.
    """

    uncertainty_b: NDArray[np.float64]
    threshold: float
    patience: int
    agreed_b: NDArray[np.int64] | None = None
    sure_b: NDArray[np.int64] | None = None


def below_threshold(outputs: HeadOutputs) -> NDArray[np.bool_]:
    """The uncertainty is strictly below the threshold."""
    exits: NDArray[np.bool_] = outputs.uncertainty_b < outputs.threshold
    return exits


def patience(outputs: HeadOutputs) -> NDArray[np.bool_]:
    """PABEE's (Zhou et al., NeurIPS 2020): `patience` heads in a row have repeated the label; no threshold."""
    assert outputs.agreed_b is not None
    exits: NDArray[np.bool_] = outputs.agreed_b >= outputs.patience
    return exits


def confident_patience(outputs: HeadOutputs) -> NDArray[np.bool_]:
    """PCEE-BERT's (Zhang et al., NAACL 2022): `patience` heads in a row were sure; labels do not count."""
    assert outputs.sure_b is not None
    exits: NDArray[np.bool_] = outputs.sure_b >= outputs.patience
    return exits


@dataclass(frozen=True)
class Rule:
    """When an exit head answers.

    exits: the rows that answer. uncertainty: what the rule measures of logits, 0 (sure) to 1.
    remembers: it looks at earlier heads. compares_labels: what decides is the label, which turns at an uncertainty of
    1 (a tie), and not at the threshold.
    """

    exits: Callable[[HeadOutputs], NDArray[np.bool_]]
    uncertainty: Callable[[NDArray[np.float32]], NDArray[np.float64]] = normalized_entropy
    remembers: bool = False
    compares_labels: bool = False

    def distance(self, uncertainty: float, threshold: float) -> float:
        """How far one head's decision is from turning, in the rule's own measure; infinite where nothing is decided.

        A threshold of 0 decides nothing: no uncertainty is below it.
        """
        if self.compares_labels:
            return 1.0 - uncertainty
        return abs(uncertainty - threshold) if threshold > 0.0 else math.inf


RULES = {
    "entropy": Rule(below_threshold),  # SmartBERT's and DeeBERT's
    "max-probability": Rule(below_threshold, uncertainty=doubt),
    "patience": Rule(patience, uncertainty=label_doubt, remembers=True, compares_labels=True),
    "confident-patience": Rule(confident_patience, remembers=True),
}
