"""Ranges and histograms of activations, in a file of the checkpoint; no text can be read from counts and extremes.

A point is one tensor that linear layers read: `hidden_00` is the embeddings' output and `hidden_06` the output of layer
6, which gates, exit heads and the next layer read; `layer_06/attention.output.dense` is what the linear layer of that
name inside layer 6 reads.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.errors import ConfigError, ManifestError
from smartbert_runtime.package.decode import decode, encode

RANGES_FILE = "activation_ranges.json"
# More than eight times the levels of int8, so that a scale chosen from the counts is as good as one from the values.
BINS = 2048
# Of a channel's range, of which there are thousands in the file.
DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """The values of one tensor. counts: BINS numbers of values, for bins of equal width from -limit to limit.

    minima, maxima: of each channel, to DIGITS digits; empty in files that were written before they were recorded.
    """

    minimum: float
    maximum: float
    limit: float
    counts: tuple[int, ...]
    minima: tuple[float, ...] = ()
    maxima: tuple[float, ...] = ()

    def centers(self) -> NDArray[np.float64]:
        """The middle of each bin."""
        return np.asarray((np.arange(BINS) + 0.5) * (2 * self.limit / BINS) - self.limit, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class ActivationRanges:
    """Point -> histogram, of the tokens (padding left out) of this many texts."""

    texts: int
    tokens: int
    points: dict[str, Histogram]


def hidden_point(layer: int) -> str:
    """The hidden state after `layer`; 0: the embeddings' output."""
    return f"hidden_{layer:02d}"


def linear_point(layer: int, name: str) -> str:
    """What the linear layer `name` inside encoder layer `layer` (from 1) reads."""
    return f"layer_{layer:02d}/{name}"


class HistogramBuilder:
    """Counts values of which nobody knows the range in advance: the limit doubles, and two bins become one."""

    def __init__(self) -> None:
        self._counts = np.zeros(BINS, dtype=np.int64)
        self._limit = 2.0**-6
        self._minima_c = self._maxima_c = np.zeros(0, dtype=np.float32)

    def add(self, values_tc: NDArray[np.float32]) -> None:
        """Count the values of tokens (t) in all channels (c); ConfigError where one is not a finite number."""
        if not values_tc.size:
            return
        lows_c, highs_c = values_tc.min(axis=0), values_tc.max(axis=0)
        if not np.isfinite(lows_c).all() or not np.isfinite(highs_c).all():
            raise ConfigError("the model computes values that are not finite numbers", hint="train it again")
        if self._minima_c.size:
            lows_c, highs_c = np.minimum(lows_c, self._minima_c), np.maximum(highs_c, self._maxima_c)
        self._minima_c, self._maxima_c = lows_c, highs_c
        while max(-float(lows_c.min()), float(highs_c.max())) >= self._limit:
            self._counts = np.pad(self._counts.reshape(-1, 2).sum(axis=1), BINS // 4)
            self._limit *= 2
        bins = ((values_tc.reshape(-1) + self._limit) * (BINS / (2 * self._limit))).astype(np.int64)
        self._counts += np.bincount(np.clip(bins, 0, BINS - 1), minlength=BINS)

    def histogram(self) -> Histogram:
        """What was counted; of at least one value."""
        assert self._minima_c.size
        return Histogram(
            minimum=float(self._minima_c.min()),
            maximum=float(self._maxima_c.max()),
            limit=self._limit,
            counts=tuple(self._counts.tolist()),
            minima=_rounded(self._minima_c),
            maxima=_rounded(self._maxima_c),
        )


def _rounded(values_c: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(float(f"{value:.{DIGITS}g}") for value in values_c)


def write_ranges(folder: Path, ranges: ActivationRanges) -> None:
    """Write the file into a checkpoint folder."""
    content = {**json.loads(encode(ranges))}
    # One line a point: the bins would be a line each.
    lines = [f"    {json.dumps(name)}: {json.dumps(point)}" for name, point in content.pop("points").items()]
    head = ",\n".join(f"  {json.dumps(name)}: {value}" for name, value in content.items())
    text = "{\n" + head + ',\n  "points": {\n' + ",\n".join(lines) + "\n  }\n}\n"
    (folder / RANGES_FILE).write_text(text, encoding="utf-8")


def read_ranges(folder: Path) -> ActivationRanges | None:
    """The ranges of a checkpoint folder; None where it has none. ConfigError for a file that does not hold ranges."""
    file = folder / RANGES_FILE
    if not file.is_file():
        return None
    try:
        ranges = decode(ActivationRanges, json.loads(file.read_text(encoding="utf-8")), where=RANGES_FILE)
    except (ValueError, ManifestError) as err:
        raise ConfigError(f"{file} is damaged: {err}", hint="remove it, and give --scales-file to record anew") from err
    for name, point in ranges.points.items():
        ends = (point.minimum, point.maximum, point.limit, *point.minima, *point.maxima)
        finite = all(math.isfinite(value) for value in ends) and len(point.minima) == len(point.maxima)
        if len(point.counts) != BINS or not finite or point.limit <= 0 or point.minimum > point.maximum:
            raise ConfigError(
                f"{file} is damaged: {name} holds no histogram of {BINS} bins",
                hint="remove it, and give --scales-file to record anew",
            )
    return ranges
