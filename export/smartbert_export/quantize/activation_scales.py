"""Scales of activations that are fixed at export: which tensor has which recorded range, and the scale for a range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from smartbert.activations.ranges import ActivationRanges, Histogram, hidden_point, linear_point
from smartbert_export.parts.signatures import Part
from smartbert_export.precisions import STATIC_CLIPPED
from smartbert_export.quantize.weights import weights
from smartbert_runtime.package.part_names import EXIT

LEVELS = 255
# Shares of the values that may be clipped at either end; the pair with the least squared error is taken.
TAILS = (0.0, 1e-6, 1e-5, 1e-4, 3e-4, 1e-3)


@dataclass(frozen=True, kw_only=True)
class ActivationScale:
    """A value x is the level round(x / scale) + zero_point, from 0 to 255."""

    scale: float
    zero_point: int


def part_scales(
    graph: onnx.GraphProto, part: Part, ranges: ActivationRanges, scheme: str
) -> dict[str, ActivationScale]:
    """The fixed scales of the tensors of one part's fp32 graph that are multiplied by weights, where ranges are known.

    scheme: STATIC covers the whole range of every tensor, STATIC_CLIPPED the part of it with the least squared error.
    """
    found = {}
    for tensor, point in _points(graph, part).items():
        if point in ranges.points:
            histogram = ranges.points[point]
            clipped = scheme == STATIC_CLIPPED
            found[tensor] = least_error(histogram) if clipped else covering(histogram.minimum, histogram.maximum)
    return found


def _points(graph: onnx.GraphProto, part: Part) -> dict[str, str]:
    """Tensor -> the point at which its values were recorded."""
    known = weights(graph)
    before = part.index if part.role == EXIT else part.index - 1
    points = {"hidden": hidden_point(before), "hidden_next": hidden_point(part.index)}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in known:
            # A weight inside an encoder layer is named like `layer.output.dense.weight` in every part that has it.
            name = node.input[1].removeprefix("layer.").removesuffix(".weight")
            points.setdefault(node.input[0], linear_point(part.index, name))
    return points


def covering(low: float, high: float) -> ActivationScale:
    """The scale whose levels reach from `low` to `high`, and have 0 among them."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32(max(high - low, 1e-12) / LEVELS))
    return ActivationScale(scale=scale, zero_point=round(-low / scale))


def least_error(histogram: Histogram) -> ActivationScale:
    """The scale with the smallest expected squared error of the recorded values, some of which it may clip."""
    lows, highs = _ends(histogram), _ends(_mirrored(histogram))
    candidates = [covering(low, -high) for low in lows for high in highs]
    return min(candidates, key=lambda scale: squared_error(histogram, scale))


def squared_error(histogram: Histogram, scale: ActivationScale) -> float:
    """Expected squared error of one value: of clipping where it is clipped, of rounding elsewhere."""
    counts, centers = np.asarray(histogram.counts, dtype=np.float64), histogram.centers()
    low, high = -scale.zero_point * scale.scale, (LEVELS - scale.zero_point) * scale.scale
    clipped = np.clip(centers, low, high)
    inside = clipped == centers
    errors = np.where(inside, scale.scale**2 / 12, (centers - clipped) ** 2)
    return float((counts * errors).sum() / counts.sum())


def _ends(histogram: Histogram) -> list[float]:
    """Where the values begin, without the shares TAILS of them."""
    shares: NDArray[np.float64] = np.cumsum(histogram.counts) / sum(histogram.counts)
    width = 2 * histogram.limit / len(histogram.counts)
    ends = [max(histogram.minimum, np.searchsorted(shares, tail, side="right") * width - histogram.limit)
            for tail in TAILS[1:]]  # fmt: skip
    return [histogram.minimum, *(float(end) for end in ends)]


def _mirrored(histogram: Histogram) -> Histogram:
    return Histogram(
        minimum=-histogram.maximum,
        maximum=-histogram.minimum,
        limit=histogram.limit,
        counts=tuple(reversed(histogram.counts)),
    )
