"""The files of a table: Markdown for people, PNG for those who would rather look."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smartbert.evaluation.curves import at_macs
from smartbert.evaluation.plots import ArmLine, plot_arms
from smartbert.experiments.plan import STUDIES, Setup, study_labels
from smartbert.experiments.results import ArmResult, load_arms, points_of
from smartbert.experiments.table import table_text


def write_table(results: Path, setup: Setup, study: str) -> tuple[Path, Path]:
    """RESULTS/TASK-BACKBONE-STUDY.md and .png from all of the study's files that lie there, made now or before."""
    folder = setup.run("any").file(results).parent
    arms = load_arms(folder, labels=study_labels(setup, study))
    name = f"{setup.task.name}-{folder.name}-{study}"
    text, picture = results / f"{name}.md", results / f"{name}.png"
    shown = f"\n![{setup.task.metric} against MAC]({picture.name})\n"
    text.write_text(table_text(arms, STUDIES[study].about) + shown, encoding="utf-8")
    title = f"{setup.task.name}, {folder.name}" + (f" ({setup.note})" if setup.note else "")
    plot_arms(title, setup.task.metric, [_line(arm) for arm in arms.values()], picture)
    return text, picture


def _line(arm: ArmResult) -> ArmLine:
    """The arm's curve, mean over seeds at equal shares; its single point where it never exits early."""
    if arm.curve is None:
        quality, share = arm.full_depth()
        return ArmLine(name=arm.name, shares=(share,), values=(quality,))
    curves = [points_of(run, arm.curve) for run in arm.runs]
    low = max(points[0].macs for points in curves)
    high = max(points[-1].macs for points in curves)
    shares = np.linspace(low, high, 200).tolist()
    values = [float(np.mean([at_macs(points, share, arm.metric) or 0.0 for points in curves])) for share in shares]
    return ArmLine(name=arm.name, shares=tuple(shares), values=tuple(values))
