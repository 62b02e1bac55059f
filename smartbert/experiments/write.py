"""The files of a table: Markdown for people, PNG for those who would rather look."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smartbert.evaluation.plots import ArmLine, plot_arms
from smartbert.experiments.results import ArmResult, load_arms, metric_at, points_of
from smartbert.experiments.runs import Run
from smartbert.experiments.table import table_text


def write_table(results: Path, run: Run) -> tuple[Path, Path]:
    """RESULTS/TASK-BACKBONE.md and .png from all run files of the task and encoder that lie there."""
    arms = load_arms(run.file(results).parent)
    text, picture = (results / f"{run.task.name}-{run.backbone}{ending}" for ending in (".md", ".png"))
    text.write_text(table_text(arms) + f"\n![{run.task.metric} against MAC]({picture.name})\n", encoding="utf-8")
    title = f"{run.task.name}, {run.backbone}" + (f" ({run.note})" if run.note else "")
    plot_arms(title, run.task.metric, [_line(arm) for arm in arms.values()], picture)
    return text, picture


def _line(arm: ArmResult) -> ArmLine:
    """The arm's curve, mean over seeds at equal shares; its single point where it never exits early."""
    if arm.curve is None:
        quality, share = arm.full_depth()
        return ArmLine(name=arm.name, shares=(share,), values=(quality,))
    curves = [points_of(run, arm.curve) for run in arm.runs]
    low = max(points[0]["mac_share"] for points in curves)
    high = max(points[-1]["mac_share"] for points in curves)
    shares = np.linspace(low, high, 200).tolist()
    values = [float(np.mean([metric_at(points, share, arm.metric) or 0.0 for points in curves])) for share in shares]
    return ArmLine(name=arm.name, shares=tuple(shares), values=tuple(values))
