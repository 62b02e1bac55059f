"""Combines the runs of an arm: means over seeds, and paired differences between arms with their intervals.

Shape letters: r rows (texts), n resamples.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartbert.evaluation.curves import CurvePoint, at_macs
from studies.training.figures import CURVE_COLUMNS
from studies.training.runs import read_figures

RESAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class ArmResult:
    """All seeds of one arm on one task and encoder, as in the run files, in the order of the seeds.

    curve: the name of the curve along which the arm exits: "both", "gates off" or "patience"; None without exits.
    """

    name: str
    curve: str | None
    runs: tuple[dict[str, Any], ...]

    @property
    def metric(self) -> str:
        """The metric that the task is judged by."""
        return str(self.runs[0]["metric"])

    def full_depth(self) -> tuple[float, float]:
        """The metric with early exits off, and the MAC share: means over seeds."""
        return (
            float(np.mean([run["full_depth"][self.metric] for run in self.runs])),
            float(np.mean([run["full_depth"]["mac_share"] for run in self.runs])),
        )

    def without_exits(self) -> tuple[float, float]:
        """The metric and MAC share where the curve never exits, though every head is evaluated: means over seeds."""
        last = [points_of(run, self.curve)[-1] for run in self.runs]
        return (
            float(np.mean([getattr(point, self.metric) for point in last])),
            float(np.mean([point.macs for point in last])),
        )

    def deviation(self) -> float:
        """The standard deviation of the full-depth metric over seeds; NaN for one seed."""
        values = [run["full_depth"][self.metric] for run in self.runs]
        return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")

    def configured(self) -> tuple[float, float]:
        """The metric and MAC share at the thresholds that training chose on its validation texts."""
        return (
            float(np.mean([run["configured"][self.metric] for run in self.runs])),
            float(np.mean([run["configured"]["mac_share"] for run in self.runs])),
        )

    def at(self, saving: float) -> float | None:
        """The metric at 1 / saving of plain fine-tuning's MAC, interpolated; None where the curve never gets there."""
        values = [at_macs(points_of(run, self.curve), 1.0 / saving, self.metric) for run in self.runs if self.curve]
        return (
            None if not values or None in values else float(np.mean([value for value in values if value is not None]))
        )

    def at_threshold(self, curve: str, threshold: float) -> tuple[float, float]:
        """The metric and the layers run at one exit threshold of an entropy curve: means over seeds."""
        # The files omit points at which nothing changes: the last one before stands for them.
        rows = [[row for row in run["curves"][curve] if row[0] <= threshold][-1] for run in self.runs]
        points = [CurvePoint(**dict(zip(CURVE_COLUMNS, row, strict=True))) for row in rows]
        return (
            float(np.mean([getattr(point, self.metric) for point in points])),
            float(np.mean([point.mean_layers_run for point in points])),
        )

    def correct_at(self, saving: float) -> NDArray[np.float64] | None:
        """How likely each text is correct at that saving (r), mean over seeds; None where the arm never gets there."""
        rows = []
        for run in self.runs:
            place = run["at"].get(self.curve, {}).get(f"{saving:g}")
            if place is None:
                return None
            cheap_r, costly_r = (_digits(correct) for correct in place["right"])
            rows.append((1.0 - place["share"]) * cheap_r + place["share"] * costly_r)
        return np.asarray(np.mean(rows, axis=0))

    def correct_at_full_depth(self) -> NDArray[np.float64]:
        """How likely each text is correct with early exits off (r), mean over seeds."""
        return np.asarray(np.mean([_digits(run["right"]["full depth"]) for run in self.runs], axis=0))


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """A mean difference of accuracy in points, and its 95 % interval over texts."""

    points: float
    low: float
    high: float


def paired_difference(one_r: NDArray[np.float64], other_r: NDArray[np.float64]) -> PairedDifference:
    """Accuracy of `one` minus `other` on the same texts; percentile bootstrap over texts (seeds averaged before).

    Always the same resamples: a table that is written again is the same table.
    """
    gain_r = one_r - other_r
    random = np.random.default_rng(0)
    # One resample at a time: for a task of 40,000 dev texts all of them together would not fit in memory.
    means = [gain_r[random.integers(0, len(gain_r), size=len(gain_r), dtype=np.int32)].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return PairedDifference(points=100.0 * float(gain_r.mean()), low=100.0 * float(low), high=100.0 * float(high))


def load_arms(files: Iterable[Path]) -> dict[str, ArmResult]:
    """The arms of these run files; PABEE is read from DeeBERT's, with which it shares its training."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        run = read_figures(file)
        runs.setdefault(str(run["arm"]), []).append(run)
    arms = {}
    for name, found in runs.items():
        ordered = tuple(sorted(found, key=lambda run: int(run["seed"])))
        curves = ordered[0]["curves"]
        curve = next((curve for curve in ("both", "gates off") if curve in curves), None)
        arms[name] = ArmResult(name=name, curve=curve, runs=ordered)
        if name == "deebert":
            arms["pabee"] = ArmResult(name="pabee", curve="patience", runs=ordered)
    return arms


def points_of(run: dict[str, Any], curve: str | None) -> list[CurvePoint]:
    """A curve's points, cheapest first; their macs are shares of plain fine-tuning's."""
    points = [CurvePoint(**dict(zip(CURVE_COLUMNS, row, strict=True))) for row in run["curves"].get(curve, [])]
    return sorted(points, key=lambda point: point.macs)


def _digits(correct: str) -> NDArray[np.float64]:
    return np.frombuffer(correct.encode(), dtype=np.uint8).astype(np.float64) - ord("0")
