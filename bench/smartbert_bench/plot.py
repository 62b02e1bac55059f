"""smartbert-bench's picture: accuracy against the median text's milliseconds, a point for each contender."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

from smartbert.evaluation.plots import COLORS, new_axes, save_figure
from smartbert_bench.contenders.contender import OPTIMUM, PACKAGE, PLAIN
from smartbert_bench.figures import BenchReport

MARKS = {PACKAGE: "o", PLAIN: "s", OPTIMUM: "^"}


def plot_bench(report: BenchReport, file: Path) -> None:
    """Into a PNG or SVG file; InputError when it cannot be written."""
    found = report.conditions
    figure, axes = new_axes(
        f"{found.texts} texts of {found.tokens.mean:.1f} tokens on average, one by one, {found.threads} threads"
    )
    axes.set_xlabel("milliseconds a text, at the median, tokenizing included")
    for color, row in zip(cycle(COLORS), report.contenders, strict=False):
        axes.plot([row.latency_ms.p50], [row.accuracy], MARKS[row.kind], color=color, label=row.name)
    axes.set_xlim(left=0.0)
    save_figure(figure, axes, file)
