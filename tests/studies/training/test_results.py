"""Results: means over seeds, points of a curve, paired intervals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smartbert_runtime.errors import InputError
from studies.training.results import ArmResult, load_arms, paired_difference, points_of
from tests.studies.training.conftest import Done


def test_means_are_over_seeds(done: Done) -> None:
    arms = load_arms(run.file(done.results) for run in done.runs)
    assert set(arms) == {"smartbert", "deebert", "pabee", "plain-mean", "truncated-2"}
    both = [done.figures("smartbert", seed)["full_depth"]["accuracy"] for seed in (50, 51)]
    assert arms["smartbert"].full_depth()[0] == pytest.approx(sum(both) / 2)
    assert arms["smartbert"].deviation() == pytest.approx(abs(both[0] - both[1]) / math.sqrt(2))
    assert math.isnan(arms["truncated-2"].deviation())
    assert arms["pabee"].curve == "patience" and arms["pabee"].runs == arms["deebert"].runs


def test_points_are_sorted_by_cost() -> None:
    # value, accuracy, F1, Matthews, layers run, share of plain fine-tuning's MAC
    run = {"curves": {"both": [[0.0, 1.0, 0.9, 0.8, 4.0, 0.6], [1.0, 0.8, 0.7, 0.6, 1.0, 0.2]]}}
    cheap, costly = points_of(run, "both")
    assert (cheap.value, cheap.accuracy, cheap.mean_layers_run, cheap.macs) == (1.0, 0.8, 1.0, 0.2)
    assert (costly.value, costly.f1, costly.matthews, costly.macs) == (0.0, 0.9, 0.8, 0.6)
    assert points_of(run, None) == []


def test_threshold_between_two_points() -> None:
    def run(*rows: list[float]) -> dict[str, Any]:
        return {"metric": "f1", "curves": {"both": list(rows)}}

    # value, accuracy, F1, Matthews, layers run, share of plain fine-tuning's MAC
    one = run([0.0, 1.0, 0.9, 0.8, 4.0, 0.6], [0.3, 0.8, 0.7, 0.6, 2.0, 0.3], [0.9, 0.5, 0.5, 0.0, 1.0, 0.2])
    other = run([0.0, 1.0, 0.8, 0.8, 4.0, 0.6])
    arm = ArmResult(name="smartbert", curve="both", runs=(one, other))
    assert arm.at_threshold("both", 0.29) == pytest.approx((0.85, 4.0))
    assert arm.at_threshold("both", 0.3) == pytest.approx((0.75, 3.0))
    assert arm.at_threshold("both", 1.0) == pytest.approx((0.65, 2.5))


def test_paired_difference_and_interval() -> None:
    same = paired_difference(np.ones(100), np.ones(100))
    assert (same.points, same.low, same.high) == (0.0, 0.0, 0.0)
    # 10 of 100 texts gained: 10 points, standard error 3.0 points, so about 4 to 16.
    gained = np.zeros(100)
    gained[:10] = 1.0
    found = paired_difference(gained, np.zeros(100))
    assert found.points == pytest.approx(10.0)
    assert found.low == pytest.approx(10.0 - 1.96 * 3.0, abs=1.0)
    assert found.high == pytest.approx(10.0 + 1.96 * 3.0, abs=1.0)
    assert paired_difference(gained, np.zeros(100)) == found


def test_damaged_file_is_refused(done: Done, tmp_path: Path) -> None:
    for content in ("{", "[]", '{"arm": "smartbert"}', "<<<<<<< HEAD"):
        (tmp_path / "smartbert-seed50.json").write_text(content, encoding="utf-8")
        with pytest.raises(InputError, match=r"smartbert-seed50\.json is not a run's file"):
            load_arms([tmp_path / "smartbert-seed50.json"])
