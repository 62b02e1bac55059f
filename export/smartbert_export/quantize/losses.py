"""What users lose when parts are quantized: the paired difference in accuracy, and how sure it is.

Shape letters: r rows (texts), c classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.parity.compare import expected_losses

# One-sided 95 %: a part fails only when its loss is above the tolerance with this confidence.
Z = 1.645


@dataclass(frozen=True, kw_only=True)
class LossEstimate:
    """Accuracy lost to quantization, as a share of the texts (0.01: one point), with its one-sided 95 % bounds."""

    mean: float
    lower: float
    upper: float


def paired_losses(
    fp32_rc: NDArray[np.float32], quantized_rc: NDArray[np.float32], label_ids_r: NDArray[np.int64] | None
) -> NDArray[np.float64]:
    """Each text's loss, from both sides' logits.

    With labels: 1 where only fp32 is right, -1 where only the quantized side is, else 0. Without: the expected loss by
    fp32's own probabilities.
    """
    if label_ids_r is None:
        return expected_losses(fp32_rc, quantized_rc)
    right_r, still_right_r = (logits_rc.argmax(axis=1) == label_ids_r for logits_rc in (fp32_rc, quantized_rc))
    return np.asarray(right_r.astype(np.float64) - still_right_r)


def estimate_loss(losses_r: NDArray[np.float64]) -> LossEstimate:
    """The mean loss of at least one text, with bounds.

    Two pseudo-texts are added, half a text to each of the four cells of a paired comparison, so that the bounds are
    not zero apart where no answer changed (Agresti and Min, Statistics in Medicine 24, 2005).
    """
    texts, total, squares = len(losses_r), float(losses_r.sum()), float((losses_r**2).sum())
    center = total / (texts + 2)
    variance = (squares + 1.0 - total**2 / (texts + 2)) / (texts + 2) ** 2
    spread = Z * math.sqrt(max(variance, 0.0))
    return LossEstimate(mean=total / texts, lower=center - spread, upper=center + spread)
