"""How good and how deep: a summary for one policy, curves over exit thresholds and patiences.

Shape letters: r rows (texts), l layers, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from smartbert.evaluation.decisions import Decisions, Recording, decide
from smartbert.evaluation.metrics import Quality, quality
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.decisions.rules import normalized_entropy

# Normalized entropies from "never" to "always" among which exit thresholds are chosen: hundredths, and ever finer steps
# toward both ends. A trained head is mostly sure; on a hard task with two classes it is unsure to the third digit.
EXIT_THRESHOLDS = tuple(
    sorted(
        {step / 100 for step in range(101)}
        | {float(f"{10 ** (-step / 40):.4g}") for step in range(40, 241)}
        | {round(1.0 - 10 ** (-step / 40), 9) for step in range(40, 201)}
    )
)
# Besides, curves are drawn over this many quantiles of the heads' real uncertainties, wherever they lie.
QUANTILES = 100

# Fewer MAC than plain fine-tuning by these factors: where curves are read, and arms compared text by text.
SAVINGS = (1.5, 2.0, 3.0, 4.0)

# MAC of each text (r) for given decisions.
Cost = Callable[[Decisions], NDArray[np.int64]]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Quality and depth over a set of texts; rates are shares of all texts, layer by layer."""

    texts: int
    accuracy: float
    f1: float
    matthews: float
    recall: dict[str, float]
    mean_layers_run: float
    skip_rate: tuple[float, ...]
    exit_rate: tuple[float, ...]
    exit_accuracy: tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """What one value of a curve's setting gives; macs is the mean over texts."""

    value: float
    accuracy: float
    f1: float
    matthews: float
    mean_layers_run: float
    macs: float


def summarize(recording: Recording, policy: Policy, labels: Sequence[str]) -> Summary:
    """Quality, recall of each label, layers run, and per layer the skip rate, exit rate and its head's own accuracy.

    Skips and exits are counted for the texts that reach the layer, as a share of all texts.
    """
    decisions = decide(recording, policy)
    reached_rl, skips_rl = decisions.reached_rl, decisions.skips_rl
    right_r = decisions.answers_r == recording.label_ids_r
    right_rl = recording.logits_rlc.argmax(-1) == recording.label_ids_r[:, None]
    has_head = [not np.isnan(recording.logits_rlc[:, layer]).any() for layer in range(skips_rl.shape[1])]
    recall = {
        label: float(right_r[recording.label_ids_r == number].mean())
        for number, label in enumerate(labels)
        if (recording.label_ids_r == number).any()
    }
    figures = _quality(recording, decisions)
    return Summary(
        texts=len(right_r),
        accuracy=figures.accuracy,
        f1=figures.f1,
        matthews=figures.matthews,
        recall=recall,
        mean_layers_run=float(decisions.layers_run_r.mean()),
        skip_rate=tuple((reached_rl & skips_rl).mean(axis=0).tolist()),
        exit_rate=tuple((decisions.exit_layer_r[:, None] == np.arange(1, skips_rl.shape[1] + 1)).mean(axis=0).tolist()),
        exit_accuracy=tuple(
            right if head else None for right, head in zip(right_rl.mean(axis=0).tolist(), has_head, strict=True)
        ),
    )


def entropy_curve(recording: Recording, policy: Policy, cost: Cost) -> tuple[CurvePoint, ...]:
    """A point for every exit threshold of EXIT_THRESHOLDS and QUANTILES, the rest of the policy as it is."""
    logits_rlc = recording.logits_rlc
    entropies = normalized_entropy(logits_rlc[~np.isnan(logits_rlc).any(axis=-1)])
    quantiles = np.quantile(entropies, np.linspace(0.0, 1.0, QUANTILES)) if entropies.size else np.array([])
    return tuple(
        curve_point(recording, threshold, decide(recording, replace(policy, exit_threshold=threshold)), cost)
        for threshold in sorted({*EXIT_THRESHOLDS, *quantiles.tolist()})
    )


def patience_curve(recording: Recording, policy: Policy, cost: Cost) -> tuple[CurvePoint, ...]:
    """A point for every patience, from never exiting down to 1."""
    layers = recording.skip_logits_rl.shape[1]
    return tuple(
        curve_point(recording, patience, decide(recording, replace(policy, rule="patience", patience=patience)), cost)
        for patience in range(layers, 0, -1)
    )


def curve_point(recording: Recording, value: float, decisions: Decisions, cost: Cost) -> CurvePoint:
    """Quality, depth and cost of these decisions."""
    figures = _quality(recording, decisions)
    return CurvePoint(
        value=value,
        accuracy=figures.accuracy,
        f1=figures.f1,
        matthews=figures.matthews,
        mean_layers_run=float(decisions.layers_run_r.mean()),
        macs=float(cost(decisions).mean()),
    )


def bracket(points: Sequence[CurvePoint], macs: float) -> tuple[int, int, float] | None:
    """Where a curve costs `macs` on average: the two points around it and the share of texts at the dearer one.

    Every point of the line between two can be had: answer each text at one of the two settings, drawn at random. A
    curve that is cheaper throughout gives its dearest point, one that never gets so cheap gives None.
    """
    order = sorted(range(len(points)), key=lambda number: points[number].macs)
    if points[order[-1]].macs <= macs:
        return order[-1], order[-1], 0.0
    for cheap, dear in pairwise(order):
        low, high = points[cheap].macs, points[dear].macs
        if low <= macs < high:
            return cheap, dear, (macs - low) / (high - low)
    return None


def at_macs(points: Sequence[CurvePoint], macs: float, metric: str = "accuracy") -> float | None:
    """A metric where a curve costs `macs` on average, see `bracket`."""
    found = bracket(points, macs)
    if found is None:
        return None
    cheap, dear, share = found
    return (1.0 - share) * float(getattr(points[cheap], metric)) + share * float(getattr(points[dear], metric))


def _quality(recording: Recording, decisions: Decisions) -> Quality:
    return quality(decisions.answers_r, recording.label_ids_r, recording.logits_rlc.shape[-1])
