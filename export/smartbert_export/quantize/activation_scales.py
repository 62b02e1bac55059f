"""Scales of activations that are fixed at export: which tensor has which recorded range, and the scale for a range.

Shape letter: i input channels of a linear layer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
# What is smoothed where the ranges of its channels are known: everything but what attention has mixed, whose channels
# are about equally wide. Elsewhere a few are many times as wide as the others and leave these a handful of levels.
EVEN = "attention.output.dense"
# How much of the difference between the channels goes into the weights: 0 none, 1 all, which leaves a channel no room
# for values beyond the recorded ones.
STRENGTH = 0.75
# A channel with a smaller share of the widest one's range is taken to have this share.
NARROWEST = 1e-3


@dataclass(frozen=True, kw_only=True)
class ActivationScale:
    """A value x is the level round(x / scale) + zero_point, from 0 to 255.

    divisors: of each channel, by which x is divided before; empty where it is not.
    """

    scale: float
    zero_point: int
    divisors: tuple[float, ...] = ()


def part_scales(
    graph: onnx.GraphProto, part: Part, ranges: ActivationRanges, scheme: str
) -> dict[str, ActivationScale]:
    """The fixed scales of the tensors of one part's fp32 graph that are multiplied by weights, where ranges are known.

    scheme: STATIC covers the whole range of every tensor, STATIC_CLIPPED the part of it with the least squared error.
    Both are about what is not smoothed.
    """
    found = {}
    for tensor, point in _points(graph, part).items():
        if point in ranges.points:
            found[tensor] = _scale(ranges.points[point], point, scheme)
    return found


def _scale(histogram: Histogram, point: str, scheme: str) -> ActivationScale:
    if histogram.minima and not point.endswith(f"/{EVEN}"):
        return smoothed(histogram)
    return least_error(histogram) if scheme == STATIC_CLIPPED else covering(histogram.minimum, histogram.maximum)


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


def smoothed(histogram: Histogram) -> ActivationScale:
    """Channels of more equal width, and the scale that covers them (SmoothQuant, Xiao et al. 2023).

    Channel i is divided by max|x_i|^STRENGTH, and the weights that it meets are multiplied by it. The paper's equation
    4 also has the weights' size, without which the error was smaller here.
    """
    lows_i, highs_i = np.array(histogram.minima), np.array(histogram.maxima)
    widths_i = np.maximum(-lows_i, highs_i)
    widths_i = np.maximum(widths_i, max(NARROWEST * widths_i.max(), 1e-12))
    divisors_i = (widths_i**STRENGTH).astype(np.float32)
    scale = covering(float((lows_i / divisors_i).min()), float((highs_i / divisors_i).max()))
    return replace(scale, divisors=tuple(divisors_i.tolist()))


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
