"""Writes a study's table as Markdown and its plot as PNG."""

from __future__ import annotations

import re
from pathlib import Path
from typing import cast

import numpy as np

from smartbert.evaluation.curves import at_macs
from smartbert.evaluation.plots import ArmLine, plot_arms
from studies.training.plan import STUDIES, Setup, study_runs
from studies.training.results import ArmResult, load_arms, points_of
from studies.training.runs import is_done
from studies.training.table import table_text

SEED = re.compile(r"-seed(\d+)\.json$")


def write_table(results: Path, setup: Setup, study: str) -> tuple[Path, Path]:
    """RESULTS/TASK-BACKBONE-STUDY.md and .png from all of the study's runs in RESULTS, of any seed.

    Files of runs with other settings, texts or encoders are left out.
    """
    folder = setup.run("any").file(results).parent
    seeds = {int(found[1]) for file in folder.glob("*.json") if (found := SEED.search(file.name))}
    runs = study_runs(setup, study, sorted(seeds))
    arms = load_arms(run.file(results) for run in runs if is_done(run, results))
    name = f"{setup.task.name}-{folder.name}-{study}"
    text, picture = results / f"{name}.md", results / f"{name}.png"
    image = f"\n![{setup.task.metric} against MAC]({picture.name})\n"
    text.write_text(table_text(arms, STUDIES[study].about) + image, encoding="utf-8")
    title = f"{setup.task.name}, {folder.name}" + (f" ({setup.note})" if setup.note else "")
    plot_arms(title, setup.task.metric, [_line(arm) for arm in arms.values()], picture)
    return text, picture


def _line(arm: ArmResult) -> ArmLine:
    """The arm's curve, mean over seeds at equal MAC shares; one point for an arm that never exits early."""
    if arm.curve is None:
        quality, share = arm.full_depth()
        return ArmLine(name=arm.name, shares=(share,), values=(quality,))
    curves = [points_of(run, arm.curve) for run in arm.runs]
    low = max(points[0].macs for points in curves)
    high = max(points[-1].macs for points in curves)
    shares = np.linspace(low, high, 200).tolist()
    # From `low` on every seed's curve has a value.
    values = [np.mean([cast(float, at_macs(points, share, arm.metric)) for points in curves]) for share in shares]
    return ArmLine(name=arm.name, shares=tuple(shares), values=tuple(map(float, values)))
