"""Accuracy plotted against computation, for one checkpoint and for all arms of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from smartbert.evaluation.evaluate import Evaluation
from smartbert_runtime.errors import InputError

# The colors of Okabe and Ito (2008), which people with any color vision can tell apart.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = {"patience": "s", "exits off": "^"}


@dataclass(frozen=True, kw_only=True)
class ArmLine:
    """One arm in the picture: MAC shares and the metric at each; a single point for an arm without exits."""

    name: str
    shares: tuple[float, ...]
    values: tuple[float, ...]


def plot_evaluation(report: Evaluation, file: Path) -> None:
    """All curves of one checkpoint over the share of a plain classifier's MAC, into a PNG or SVG file."""
    figure, axes = new_axes(f"{report.texts} texts, {report.mean_tokens:.1f} tokens on average")
    for color, (name, points) in zip(COLORS, report.curves.items(), strict=False):
        shares = [point.macs / report.plain_macs for point in points]
        axes.plot(shares, [point.accuracy for point in points], MARKS.get(name, "") + "-", color=color, label=name)
    axes.plot([report.macs / report.plain_macs], [report.summary.accuracy], "*", color="black", label="as configured")
    save_figure(figure, axes, file)


def new_axes(title: str, *, metric: str = "accuracy") -> tuple[Figure, Any]:
    """A figure with one set of axes: share of a plain classifier's MAC to the right, quality upwards."""
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("MAC, as a share of plain fine-tuning's (real length; gates and heads counted)")
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    return figure, axes


def save_figure(figure: Figure, axes: Any, file: Path) -> None:
    """Add the legend and write the file; the same figure gives the same bytes."""
    axes.legend(fontsize=8)
    with matplotlib.rc_context({"svg.hashsalt": "smartbert"}):
        try:
            figure.savefig(file, dpi=120, metadata={"Software": None} if file.suffix == ".png" else None)
        except (OSError, ValueError) as err:
            raise InputError(f"{file} cannot be written: {err}", hint="name a .png or .svg file") from err


def plot_arms(title: str, metric: str, arms: Sequence[ArmLine], file: Path) -> None:
    """All arms of one task in one picture: lines for those that exit early, crosses for those that answer once."""
    figure, axes = new_axes(title, metric=metric)
    for color, mark, arm in zip(cycle(COLORS), cycle("ovDs^P"), arms, strict=False):
        if len(arm.shares) == 1:
            axes.plot(arm.shares, arm.values, mark, color=color, label=arm.name, markersize=8)
        else:
            style = "--" if arm.name.startswith("no-") else "-"
            axes.plot(arm.shares, arm.values, style, color=color, label=arm.name)
    axes.set_xlim(left=0.0)
    save_figure(figure, axes, file)
