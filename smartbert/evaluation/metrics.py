"""How good answers are: accuracy, F1 and Matthews' correlation, as GLUE's tasks report them.

Shape letters: r rows (texts), c classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# The figure that a task is evaluated by; GLUE: F1 for MRPC and QQP, Matthews for CoLA, accuracy for the rest.
METRICS = ("accuracy", "f1", "matthews")


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The three figures of one set of answers.

    accuracy: share of right answers. f1: of the second label where there are two, else the mean over labels.
    matthews: correlation of answers and labels, 0 for guessing, 1 for all right.
    """

    accuracy: float
    f1: float
    matthews: float


def quality(answers_r: NDArray[np.int64], label_ids_r: NDArray[np.int64], classes: int) -> Quality:
    """All three from the answers and the labels.

    Answers [1, 1, 0, 0] for labels [1, 0, 0, 0]: accuracy 0.75, F1 of label 1 = 2 / 3, Matthews 0.577.
    """
    confusion_cc = np.zeros((classes, classes), dtype=np.float64)  # label, answer
    np.add.at(confusion_cc, (label_ids_r, answers_r), 1.0)
    right_c, labeled_c, answered_c = confusion_cc.diagonal(), confusion_cc.sum(axis=1), confusion_cc.sum(axis=0)
    occurs_c = labeled_c + answered_c > 0
    f1_c = np.where(occurs_c, 2.0 * right_c / np.where(occurs_c, labeled_c + answered_c, 1.0), 0.0)
    return Quality(
        accuracy=float(right_c.sum() / len(label_ids_r)),
        f1=float(f1_c[1]) if classes == 2 else float(f1_c[occurs_c].mean()),
        matthews=_matthews(right_c.sum(), labeled_c, answered_c),
    )


def _matthews(right: float, labeled_c: NDArray[np.float64], answered_c: NDArray[np.float64]) -> float:
    """For any number of classes (Gorodkin, 2004); 0 where all labels or all answers are one."""
    texts = labeled_c.sum()
    spread = (texts**2 - (answered_c**2).sum()) * (texts**2 - (labeled_c**2).sum())
    return float((right * texts - labeled_c @ answered_c) / math.sqrt(spread)) if spread > 0 else 0.0
