"""Plans: the runs of a study, none of them twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from smartbert.training.arms import settings_of
from smartbert_runtime.errors import ConfigError
from studies.training.plan import STUDIES, study_runs
from studies.training.runs import Run
from tests.conftest import make_encoder_config
from tests.studies.training.conftest import Done


def test_runs_for_every_seed(done: Done) -> None:
    runs = study_runs(done.setup, "arms", (50, 51))
    labels = [run.label for run in runs if run.settings.seed == 51]
    arms = ["smartbert", "plain-mean", "deebert", "plain-first", "truncated-2", "truncated-1"]
    assert labels == [*arms, "with-contrast", "no-joint-exits", "no-hard", "recipe-paper"]
    assert len({run.file(done.results) for run in runs}) == len(runs) == 20
    some = study_runs(done.setup, "arms", (50,), ["deebert", "smartbert"])
    assert [run.label for run in some] == ["deebert", "smartbert"]


def test_unknown_study_or_arm_is_refused(done: Done) -> None:
    with pytest.raises(ConfigError, match="unknown study 'layers'") as caught:
        study_runs(done.setup, "layers", (50,))
    assert "arms, options, gates" in caught.value.hint
    with pytest.raises(ConfigError, match="unknown arm 'no-gates'") as caught:
        study_runs(done.setup, "arms", (50,), ["no-gates"])  # of another study
    assert "plain-mean" in caught.value.hint


@pytest.mark.parametrize("study", STUDIES)
def test_runs_of_a_study_differ(done: Done, study: str) -> None:
    runs = study_runs(done.setup, study, (50,))
    trained = [(settings_of(run.settings), run.start) for run in runs]
    assert all(trained.count(one) == 1 for one in trained)
    assert len(runs) == len({run.label for run in runs})


def test_joint_exits_variation_is_opposite(done: Done) -> None:
    setup = replace(done.setup, settings={"joint_exits": 0.0})
    settings = {run.label: run.settings.joint_exits for run in study_runs(setup, "options", (50,))}
    assert settings["joint-exits"] == 1.0 and settings["smartbert"] == 0.0
    assert "no-joint-exits" not in settings


def test_warm_start_trains_equally_long(done: Done) -> None:
    runs = {run.label: run for run in study_runs(done.setup, "options", (50,))}
    best, warm = runs["smartbert"].settings, runs["warm-start-from-plain"]
    assert warm.start is not None and warm.start.settings.arm == "plain"
    assert warm.start.settings.stage1_epochs + warm.settings.stage1_epochs == best.stage1_epochs
    assert warm.settings.soft_epochs == best.soft_epochs


def test_encoder_of_two_layers(done: Done, tmp_path: Path) -> None:
    make_encoder_config(layers=2).save_pretrained(tmp_path)
    runs = study_runs(replace(done.setup, model=str(tmp_path)), "arms", (50,))
    assert [run.settings.keep_layers for run in runs if run.label.startswith("truncated")] == [1]


def test_shorter_training_keeps_shares(done: Done) -> None:
    setup = replace(done.setup, settings={"stage1_epochs": 2})
    settings = setup.run("smartbert").settings
    assert (settings.stage1_epochs, settings.ungated_epochs, settings.soft_epochs) == (2, 1, 0)


def test_studies_share_runs(done: Done) -> None:
    shared: dict[str, set[Run]] = {}
    for study in STUDIES:
        for run in study_runs(done.setup, study, (50,)):
            shared.setdefault(run.label, set()).add(run)
    assert all(len(same) == 1 for same in shared.values())
    assert {"smartbert", "recipe-paper", "target-two-thirds"} < set(shared)
