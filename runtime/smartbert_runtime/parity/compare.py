"""When two answers count as equal: numbers within a tolerance, decisions exactly. Shape letters: r rows (texts)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.trace import Trace

# fp32 kernels sum in different orders: a decision closer to its threshold than this may go either way.
DECISION_MARGIN = 1e-4
# Share of a real data set's texts whose decisions may be that close.
NEAR_SHARE = 0.002
# Accuracy that a quantized package may lose, as a share of the texts; of a few texts one whole answer.
LABEL_LOSS = 0.02
# End to end, after up to L layers of fp32 rounding.
LOGIT_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Largest and mean absolute difference of two arrays, and the tolerance for the largest."""

    max_abs: float
    mean_abs: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the largest is within the tolerance, which infinity never is."""
        return np.isfinite(self.max_abs) and self.max_abs <= self.tolerance


@dataclass(frozen=True, kw_only=True)
class DecisionReport:
    """Traces compared with traces.

    near: texts with a decision within DECISION_MARGIN of its threshold; different: other texts whose decisions differ.
    label_loss: the mean of `expected_losses`, what changed labels cost.
    """

    texts: int
    near: tuple[int, ...]
    different: tuple[int, ...]
    label_agreement: float
    label_loss: float
    logits: Difference
    nearest_margin: float
    exit_agreement: float
    exact: bool

    @property
    def ok(self) -> bool:
        """Same decisions, logits within tolerance, few near decisions; quantized: labels that cost little."""
        if not self.exact:
            return self.label_loss * self.texts <= max(1.0, LABEL_LOSS * self.texts) + 1e-9
        few = len(self.near) <= NEAR_SHARE * self.texts
        return not self.different and few and self.logits.ok


def difference(expected: NDArray[np.float32], actual: NDArray[np.float32], tolerance: float) -> Difference:
    """Compare element by element; arrays of different shapes, or with a NaN or an infinity, differ infinitely."""
    if expected.shape != actual.shape or not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        return Difference(max_abs=float("inf"), mean_abs=float("inf"), tolerance=tolerance)
    absolute = np.abs(expected.astype(np.float64) - actual.astype(np.float64))
    return Difference(max_abs=float(absolute.max()), mean_abs=float(absolute.mean()), tolerance=tolerance)


def expected_losses(expected_rc: NDArray[np.float32], actual_rc: NDArray[np.float32]) -> NDArray[np.float64]:
    """What each text (r) loses by its answer in `actual`, from both sides' logits (r,c).

    0 for the same label; for another one, the expected side's probability of its own less that of the other. Were its
    probabilities exact, that would be the expected difference in accuracy: a change between two labels that it hardly
    distinguishes costs little.
    """
    exps_rc = np.exp(expected_rc.astype(np.float64) - expected_rc.max(axis=1, keepdims=True))
    probabilities_rc = exps_rc / exps_rc.sum(axis=1, keepdims=True)
    rows = np.arange(len(expected_rc))
    own_r, other_r = (probabilities_rc[rows, logits_rc.argmax(axis=1)] for logits_rc in (expected_rc, actual_rc))
    return np.asarray(own_r - other_r)


def compare_traces(
    expected: Sequence[Trace], actual: Sequence[Trace], policy: Policy, *, exact: bool = True
) -> DecisionReport:
    """Compare row by row; logits only where the decisions are equal.

    exact: false for quantized weights, which change near decisions: labels may then cost little, the rest is reported.
    """
    margins_r = [trace.margin(policy) for trace in expected]
    same_r = [one.decisions() == other.decisions() for one, other in zip(expected, actual, strict=True)]
    near = tuple(row for row, margin in enumerate(margins_r) if margin <= DECISION_MARGIN)
    kept = [row for row, same in enumerate(same_r) if same]
    if kept:
        logits = difference(
            np.stack([expected[row].logits_c for row in kept]),
            np.stack([actual[row].logits_c for row in kept]),
            LOGIT_TOLERANCE,
        )
    else:
        logits = Difference(max_abs=float("inf"), mean_abs=float("inf"), tolerance=LOGIT_TOLERANCE)
    expected_rc, actual_rc = (np.stack([trace.logits_c for trace in traces]) for traces in (expected, actual))
    return DecisionReport(
        texts=len(expected),
        near=near,
        different=tuple(row for row, same in enumerate(same_r) if not same and row not in near),
        label_agreement=float((expected_rc.argmax(axis=1) == actual_rc.argmax(axis=1)).mean()),
        label_loss=float(expected_losses(expected_rc, actual_rc).mean()),
        logits=logits,
        nearest_margin=min(margins_r),
        exit_agreement=float(
            np.mean([one.exit_layer == other.exit_layer for one, other in zip(expected, actual, strict=True)])
        ),
        exact=exact,
    )
