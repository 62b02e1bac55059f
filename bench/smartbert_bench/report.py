"""The data of a bench report: each contender's figures, the ratios between contenders, the conditions.

figures.py computes it, render.py prints it, plot.py draws it.
"""

from __future__ import annotations

from dataclasses import dataclass

from smartbert_bench.conditions import Conditions


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds from a text to its label, one text at a time, tokenizing included; over the texts."""

    p50: float
    p95: float
    p99: float
    mean: float


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One contender's row. MB are 1e6 bytes; None: not measured, or not reported by this system.

    loaded_mb, steady_mb, peak_mb: resident memory with everything loaded, after the one-by-one passes, and its maximum
    until then. batch_peak_mb: its maximum after the batches, too. A package's two modes run in one process, so they
    share these.
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
    """A ratio's median, minimum and maximum over the passes."""

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
    """The result of one run; every ratio is between contenders of this run."""

    conditions: Conditions
    contenders: tuple[Figures, ...]
    ratios: tuple[Ratio, ...]
