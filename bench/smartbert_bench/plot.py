"""Draws a bench report: accuracy against the median text's milliseconds, one point per contender."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

from smartbert.evaluation.plots import COLORS, new_axes, save_figure
from smartbert_bench.contenders.contender import OPTIMUM, PACKAGE, PLAIN
from smartbert_bench.report import BenchReport

MARKS = {PACKAGE: "o", PLAIN: "s", OPTIMUM: "^"}


def plot_bench(report: BenchReport, file: Path) -> None:
    """Write a PNG or SVG file; InputError when it cannot be written."""
    conditions = report.conditions
    figure, axes = new_axes(
        f"{conditions.texts} texts of {conditions.tokens.mean:.1f} tokens on average, one by one, "
        f"{conditions.threads} threads"
    )
    axes.set_xlabel("milliseconds per text, at the median, tokenizing included")
    for color, row in zip(cycle(COLORS), report.contenders, strict=False):
        axes.plot([row.latency_ms.p50], [row.accuracy], MARKS[row.kind], color=color, label=row.name)
    axes.set_xlim(left=0.0)
    save_figure(figure, axes, file)
