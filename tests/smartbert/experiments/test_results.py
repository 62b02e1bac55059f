"""results.py and table.py: means over seeds, paired intervals, and the table that is made of them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from smartbert.experiments.plan import GLUE_ARMS, glue_runs, option_runs
from smartbert.experiments.results import load_arms, metric_at, paired_difference
from smartbert.experiments.table import best_plain, table_text
from smartbert.experiments.write import write_table
from smartbert_runtime.errors import ConfigError, InputError
from tests.smartbert.experiments.conftest import Done


def test_means_are_over_seeds(done: Done) -> None:
    arms = load_arms(done.results / "trec6" / "encoder")
    assert set(arms) == {"smartbert", "deebert", "pabee", "plain-mean", "truncated-2"}
    both = [done.figures("smartbert", seed)["full_depth"]["accuracy"] for seed in (50, 51)]
    assert arms["smartbert"].full_depth()[0] == pytest.approx(sum(both) / 2)
    assert arms["smartbert"].deviation() == pytest.approx(abs(both[0] - both[1]) / math.sqrt(2))
    assert math.isnan(arms["truncated-2"].deviation())
    assert arms["pabee"].curve == "patience" and arms["pabee"].runs == arms["deebert"].runs


def test_only_the_seeds_asked_for_are_read(done: Done) -> None:
    arms = load_arms(done.results / "trec6" / "encoder", seeds=[51])
    assert [run["seed"] for run in arms["smartbert"].runs] == [51]
    assert "truncated-2" not in arms


def test_a_metric_between_two_points_lies_on_their_line() -> None:
    points = [{"mac_share": 0.2, "accuracy": 0.8}, {"mac_share": 0.6, "accuracy": 1.0}]
    assert metric_at(points, 0.5, "accuracy") == pytest.approx(0.95)
    assert metric_at(points, 0.1, "accuracy") is None
    assert metric_at(points, 0.9, "accuracy") == 1.0  # it need not cost more


def test_a_paired_difference_and_its_interval() -> None:
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


def test_the_table_names_what_its_numbers_hang_on(done: Done) -> None:
    arms = load_arms(done.results / "trec6" / "encoder")
    text = table_text(arms)
    for words in ("**a tiny encoder**", "seeds 50, 51", "real length", "gates and exit heads counted", "torch 2."):
        assert words in text
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| a")]
    names = [row.split("|")[1].strip() for row in rows]
    assert "skipped, layer by layer" in text
    assert names[:5] == ["plain-mean", "truncated-2", "deebert", "pabee", "smartbert"]
    assert f"{100 * arms['smartbert'].full_depth()[0]:.2f}" in next(row for row in rows if "smartbert" in row)
    assert "What the gates bring" in text
    plain = best_plain(arms)
    assert plain is not None and plain.name == "plain-mean"


def test_a_table_written_twice_is_the_same_twice(done: Done) -> None:
    first = [file.read_bytes() for file in write_table(done.results, done.runs[0])]
    assert [file.read_bytes() for file in write_table(done.results, done.runs[0])] == first
    assert first[1].startswith(b"\x89PNG")


def test_a_damaged_file_is_named(done: Done, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(done.results / "trec6" / "encoder", tmp_path / "encoder"))
    (folder / "smartbert-seed50.json").write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"smartbert-seed50\.json is not a run's file"):
        load_arms(folder)


def test_every_arm_is_planned_for_every_seed(done: Done) -> None:
    runs = list(glue_runs(done.setup, GLUE_ARMS, (50, 51)))
    labels = [run.label for run in runs if run.settings.seed == 51]
    assert labels == ["smartbert", "plain-mean", "deebert", "plain-first", "truncated-2", "truncated-1", *GLUE_ARMS[5:]]
    assert len({run.file(done.results) for run in runs}) == len(runs) == 16
    with pytest.raises(ConfigError, match="unknown arm 'fastbert'"):
        list(glue_runs(done.setup, ["fastbert"], (50,)))


def test_each_option_differs_from_the_best_recipe(done: Done, tmp_path: Path) -> None:
    runs = {run.label: run for run in option_runs(done.setup, (50,), tmp_path)}
    best = runs.pop("smartbert")
    assert len(runs) >= 10
    assert all(run.settings != best.settings for run in runs.values())
    warm = runs["warm-start-from-plain"]
    assert warm.model == str(tmp_path / "trec6" / "encoder" / "plain-mean-seed50")
    assert warm.backbone == "encoder"
