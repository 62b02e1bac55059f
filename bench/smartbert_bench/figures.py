"""From answers and times to figures and ratios. Shape letters: p passes, t texts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_bench.conditions import Conditions
from smartbert_bench.contenders.contender import OPTIMUM, PACKAGE, PLAIN, Contender
from smartbert_bench.passes import Singles
from smartbert_bench.starts import Starts
from smartbert_bench.workers.package_worker import POLICY
from smartbert_bench.workers.protocol import Weight
from smartbert_runtime.text_files.examples import Examples


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All that was taken of one contender.

    speeds: batch size -> texts per second in each pass. loaded, steady, last: its process's memory when everything was
    loaded, after the passes one by one, and after the batches.
    """

    singles: Singles
    speeds: Mapping[int, NDArray[np.float64]]
    starts: Starts
    loaded: Weight
    steady: Weight
    last: Weight


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds from a text to its label, one text at a time, tokenizing included; over the texts."""

    p50: float
    p95: float
    p99: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One contender's line. MB are 1e6 bytes; None: not measured, or not told by this system.

    loaded_mb, steady_mb, peak_mb: resident with everything loaded, after the passes one by one, and at its highest up
    to there. batch_peak_mb: its highest with the batches. A package's two ways are asked in one process, so they share
    these.
    """

    name: str
    kind: str
    accuracy: float
    recall: dict[str, float]
    mean_layers_run: float
    latency_ms: Latency
    texts_per_second: dict[str, float]
    load_seconds: float
    first_answer_seconds: float | None
    loaded_mb: float | None
    steady_mb: float | None
    peak_mb: float | None
    batch_peak_mb: float | None
    disk_mb: float


@dataclass(frozen=True, kw_only=True)
class Spread:
    """A ratio's median, lowest and highest over the passes."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times faster `of` is than `over`: at the median text, on average, and in batches."""

    of: str
    over: str
    median: Spread
    mean: Spread
    texts_per_second: dict[str, Spread]


@dataclass(frozen=True, kw_only=True)
class BenchReport:
    """What smartbert-bench prints; every ratio is between contenders of this run."""

    conditions: Conditions
    contenders: tuple[Figures, ...]
    ratios: tuple[Ratio, ...]


def figures(contender: Contender, measured: Measured, examples: Examples) -> Figures:
    """A text counts with its median over the passes."""
    ms_t = np.median(measured.singles.ms_pt, axis=0)
    labels = examples.labels or ()
    right = [found == own for found, own in zip(measured.singles.labels, labels, strict=True)]
    return Figures(
        name=contender.name,
        kind=contender.kind,
        accuracy=statistics.fmean(right),
        recall={
            label: statistics.fmean(hit for hit, own in zip(right, labels, strict=True) if own == label)
            for label in sorted(set(labels))
        },
        mean_layers_run=statistics.fmean(measured.singles.layers_run),
        latency_ms=Latency(
            p50=float(np.percentile(ms_t, 50)),
            p95=float(np.percentile(ms_t, 95)),
            p99=float(np.percentile(ms_t, 99)),
            mean=float(ms_t.mean()),
        ),
        texts_per_second={str(size): float(np.median(speeds)) for size, speeds in measured.speeds.items()},
        load_seconds=statistics.median(measured.starts.load_seconds),
        first_answer_seconds=statistics.median(first) if (first := measured.starts.first_answer_seconds) else None,
        loaded_mb=measured.loaded.resident_mb,
        steady_mb=measured.steady.resident_mb,
        peak_mb=measured.steady.peak_mb,
        batch_peak_mb=measured.last.peak_mb if measured.speeds else None,
        disk_mb=contender.disk_bytes / 1e6,
    )


def ratios(contenders: Sequence[Contender], measured: Mapping[str, Measured]) -> list[Ratio]:
    """Every contender that decides, over its rivals."""
    return [
        _ratio(of.name, over.name, measured[of.name], measured[over.name])
        for of in contenders
        for over in contenders
        if are_rivals(of, over)
    ]


def are_rivals(of: Contender, over: Contender) -> bool:
    """A package asked with its policy is held against all its layers, plain in its precision, and every optimum."""
    if of.kind != PACKAGE or of.way != POLICY:
        return False
    same_worker = over.worker.name == of.worker.name and over.way != of.way
    return same_worker or over.kind == OPTIMUM or (over.kind == PLAIN and over.precision == of.precision)


def _ratio(of: str, over: str, quick: Measured, slow: Measured) -> Ratio:
    quick_pt, slow_pt = quick.singles.ms_pt, slow.singles.ms_pt
    return Ratio(
        of=of,
        over=over,
        median=spread(np.median(slow_pt, axis=1) / np.median(quick_pt, axis=1)),
        mean=spread(slow_pt.mean(axis=1) / quick_pt.mean(axis=1)),
        texts_per_second={str(size): spread(quick.speeds[size] / slow.speeds[size]) for size in quick.speeds},
    )


def spread(ratio_p: NDArray[np.float64]) -> Spread:
    """Over the passes."""
    return Spread(value=float(np.median(ratio_p)), low=float(ratio_p.min()), high=float(ratio_p.max()))
