"""When an exit head's answer is good enough: one function a rule, over what a batch's heads have said so far.

A new rule is a function here, an entry in RULES, and a test. Every threshold goes from 0 (never) to 1.
Shape letters: b batch, c classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


def softmax(logits_bc: NDArray[np.float32]) -> NDArray[np.float64]:
    """Class probabilities, in double precision, so that every side that decides decides alike."""
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
        return np.array([entropy_of_one(logits_bc[0].tolist())])
    probabilities_bc = softmax(logits_bc)
    entropy_b = -(probabilities_bc * np.log(np.maximum(probabilities_bc, 1e-300))).sum(axis=-1)
    # Rounded, so that rounding errors make no uniform row a little less or more than 1, and no sure row -0.0.
    normalized: NDArray[np.float64] = np.round(entropy_b / math.log(logits_bc.shape[-1]), 12).clip(0.0, 1.0) + 0.0
    return normalized


def entropy_of_one(logits: Sequence[float]) -> float:
    """`normalized_entropy` of one row, step by step the same: numpy's ten calls take four times as long on one row."""
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


class History:
    """What the heads asked before said of each row: how often in a row they agreed, and how often they were sure."""

    def __init__(self, batch: int) -> None:
        self.label_b = np.full(batch, -1, dtype=np.int64)
        self.agreed_b = np.zeros(batch, dtype=np.int64)
        self.sure_b = np.zeros(batch, dtype=np.int64)

    def hear(
        self,
        asked: NDArray[np.bool_],
        logits_bc: NDArray[np.float32],
        entropy_b: NDArray[np.float64],
        threshold: float,
    ) -> None:
        """One head has answered about the rows in `asked`; of the others nothing changes."""
        label_b = logits_bc.argmax(axis=-1)
        self.agreed_b[asked] = np.where(label_b == self.label_b[asked], self.agreed_b[asked] + 1, 0)
        self.label_b[asked] = label_b
        self.sure_b[asked] = np.where(entropy_b < threshold, self.sure_b[asked] + 1, 0)

    def keep(self, stays: NDArray[np.bool_]) -> None:
        """The other rows have left."""
        self.label_b, self.agreed_b, self.sure_b = self.label_b[stays], self.agreed_b[stays], self.sure_b[stays]


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a rule decides about: the rows whose head was just asked.

    entropy_b: their normalized entropy.
    agreed_b: how many heads in a row have repeated the label of the one before; sure_b: how many in a row had an
    entropy below the threshold; both count the head just asked, and are None for a rule that does not remember.
    """

    logits_bc: NDArray[np.float32]
    entropy_b: NDArray[np.float64]
    threshold: float
    patience: int
    agreed_b: NDArray[np.int64] | None = None
    sure_b: NDArray[np.int64] | None = None


def entropy(said: Said) -> NDArray[np.bool_]:
    """SmartBERT's and DeeBERT's: normalized entropy strictly below the threshold."""
    exits: NDArray[np.bool_] = said.entropy_b < said.threshold
    return exits


def max_probability(said: Said) -> NDArray[np.bool_]:
    """The largest probability is near enough to 1: `doubt` strictly below the threshold."""
    exits: NDArray[np.bool_] = doubt(said.logits_bc) < said.threshold
    return exits


def patience(said: Said) -> NDArray[np.bool_]:
    """PABEE's (Zhou et al., NeurIPS 2020): `patience` heads in a row have repeated the label; no threshold."""
    assert said.agreed_b is not None
    exits: NDArray[np.bool_] = said.agreed_b >= said.patience
    return exits


def confident_patience(said: Said) -> NDArray[np.bool_]:
    """PCEE-BERT's (Zhang et al., NAACL 2022): `patience` heads in a row were sure by entropy, whatever their labels."""
    assert said.sure_b is not None
    exits: NDArray[np.bool_] = said.sure_b >= said.patience
    return exits


@dataclass(frozen=True)
class Rule:
    """A rule's function; `remembers`: it looks at heads asked before."""

    exits: Callable[[Said], NDArray[np.bool_]]
    remembers: bool = False


RULES = {
    "entropy": Rule(entropy),
    "max-probability": Rule(max_probability),
    "patience": Rule(patience, remembers=True),
    "confident-patience": Rule(confident_patience, remembers=True),
}
