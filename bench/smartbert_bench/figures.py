"""Computes a report's figures and ratios from measurements. Shape letters: p passes, t texts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_bench.contenders.contender import OPTIMUM, PACKAGE, PLAIN, Contender
from smartbert_bench.passes import OneByOne
from smartbert_bench.report import Figures, Latency, Ratio, Spread
from smartbert_bench.starts import StartTimes
from smartbert_bench.workers.protocol import POLICY, MemoryReply
from smartbert_runtime.text_files.examples import Examples
from smartbert_runtime.text_files.values import canonical_label


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """Everything that was measured of one contender.

    batch_speeds: batch size -> texts per second in each pass. The memory is its process's: when everything was loaded,
    after the one-by-one passes, and after the batches.
    """

    one_by_one: OneByOne
    batch_speeds: Mapping[int, NDArray[np.float64]]
    starts: StartTimes
    loaded_memory: MemoryReply
    steady_memory: MemoryReply
    final_memory: MemoryReply


def compute_figures(contender: Contender, measured: Measurements, examples: Examples) -> Figures:
    """One contender's row; a text counts with its median over the passes."""
    ms_t = np.median(measured.one_by_one.ms_pt, axis=0)
    labels = examples.labels or ()
    correct = [
        canonical_label(predicted) == label for predicted, label in zip(measured.one_by_one.labels, labels, strict=True)
    ]
    return Figures(
        name=contender.name,
        kind=contender.kind,
        accuracy=statistics.fmean(correct),
        recall={
            label: statistics.fmean(hit for hit, own in zip(correct, labels, strict=True) if own == label)
            for label in sorted(set(labels))
        },
        mean_layers_run=statistics.fmean(measured.one_by_one.layers_run),
        latency_ms=Latency(
            p50=float(np.percentile(ms_t, 50)),
            p95=float(np.percentile(ms_t, 95)),
            p99=float(np.percentile(ms_t, 99)),
            mean=float(ms_t.mean()),
        ),
        texts_per_second={str(size): float(np.median(speeds_p)) for size, speeds_p in measured.batch_speeds.items()},
        load_seconds=statistics.median(measured.starts.load_seconds),
        first_answer_seconds=statistics.median(first) if (first := measured.starts.first_answer_seconds) else None,
        loaded_mb=measured.loaded_memory.resident_mb,
        steady_mb=measured.steady_memory.resident_mb,
        peak_mb=measured.steady_memory.peak_mb,
        batch_peak_mb=measured.final_memory.peak_mb if measured.batch_speeds else None,
        disk_mb=contender.disk_bytes / 1e6,
    )


def compute_ratios(contenders: Sequence[Contender], measured: Mapping[str, Measurements]) -> list[Ratio]:
    """Every package that follows its policy, over each of its rivals."""
    return [
        _ratio(of.name, over.name, measured[of.name], measured[over.name])
        for of in contenders
        for over in contenders
        if are_rivals(of, over)
    ]


def are_rivals(of: Contender, over: Contender) -> bool:
    """A package under its policy is compared with itself at full depth, plain in its precision, and every optimum."""
    if of.kind != PACKAGE or of.mode != POLICY:
        return False
    same_worker = over.worker.name == of.worker.name and over.mode != of.mode
    return same_worker or over.kind == OPTIMUM or (over.kind == PLAIN and over.precision == of.precision)


def _ratio(of: str, over: str, faster: Measurements, slower: Measurements) -> Ratio:
    fast_pt, slow_pt = faster.one_by_one.ms_pt, slower.one_by_one.ms_pt
    return Ratio(
        of=of,
        over=over,
        median=spread(np.median(slow_pt, axis=1) / np.median(fast_pt, axis=1)),
        mean=spread(slow_pt.mean(axis=1) / fast_pt.mean(axis=1)),
        texts_per_second={
            str(size): spread(faster.batch_speeds[size] / slower.batch_speeds[size]) for size in faster.batch_speeds
        },
    )


def spread(ratio_p: NDArray[np.float64]) -> Spread:
    """Median, minimum and maximum over the passes."""
    return Spread(value=float(np.median(ratio_p)), low=float(ratio_p.min()), high=float(ratio_p.max()))
