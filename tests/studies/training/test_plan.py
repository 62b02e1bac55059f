"""plan.py: which runs a study is made of, and that none is made twice."""

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


def test_a_study_is_planned_for_every_seed(done: Done) -> None:
    runs = study_runs(done.setup, "arms", (50, 51))
    labels = [run.label for run in runs if run.settings.seed == 51]
    arms = ["smartbert", "plain-mean", "deebert", "plain-first", "truncated-2", "truncated-1"]
    assert labels == [*arms, "with-contrast", "no-joint-exits", "no-hard", "recipe-paper"]
    assert len({run.file(done.results) for run in runs}) == len(runs) == 20
    some = study_runs(done.setup, "arms", (50,), ["deebert", "smartbert"])
    assert [run.label for run in some] == ["deebert", "smartbert"]


def test_unknown_studies_and_arms_are_named(done: Done) -> None:
    with pytest.raises(ConfigError, match="unknown study 'layers'") as caught:
        study_runs(done.setup, "layers", (50,))
    assert "arms, options, gates" in caught.value.hint
    with pytest.raises(ConfigError, match="unknown arm 'no-gates'") as caught:
        study_runs(done.setup, "arms", (50,), ["no-gates"])  # of another study
    assert "plain-mean" in caught.value.hint


@pytest.mark.parametrize("study", STUDIES)
def test_no_two_runs_of_a_study_are_the_same(done: Done, study: str) -> None:
    runs = study_runs(done.setup, study, (50,))
    trained = [(settings_of(run.settings), run.start) for run in runs]
    assert all(trained.count(one) == 1 for one in trained)
    assert len(runs) == len({run.label for run in runs})


def test_the_variation_is_what_the_table_itself_does_not_do(done: Done) -> None:
    setup = replace(done.setup, settings={"joint_exits": 0.0})
    settings = {run.label: run.settings.joint_exits for run in study_runs(setup, "options", (50,))}
    assert settings["joint-exits"] == 1.0 and settings["smartbert"] == 0.0
    assert "no-joint-exits" not in settings


def test_a_warm_start_has_trained_no_longer_than_the_others(done: Done) -> None:
    runs = {run.label: run for run in study_runs(done.setup, "options", (50,))}
    best, warm = runs["smartbert"].settings, runs["warm-start-from-plain"]
    assert warm.start is not None and warm.start.settings.arm == "plain"
    assert warm.start.settings.stage1_epochs + warm.settings.stage1_epochs == best.stage1_epochs
    assert warm.settings.soft_epochs == best.soft_epochs


def test_an_encoder_of_two_layers_can_be_studied(done: Done, tmp_path: Path) -> None:
    make_encoder_config(layers=2).save_pretrained(tmp_path)
    runs = study_runs(replace(done.setup, model=str(tmp_path)), "arms", (50,))
    assert [run.settings.keep_layers for run in runs if run.label.startswith("truncated")] == [1]


def test_a_shorter_training_keeps_the_recipes_shares_as_the_command_does(done: Done) -> None:
    setup = replace(done.setup, settings={"stage1_epochs": 2})
    settings = setup.run("smartbert").settings
    assert (settings.stage1_epochs, settings.plain_epochs, settings.soft_epochs) == (2, 1, 0)


def test_runs_that_studies_share_are_made_once(done: Done) -> None:
    shared: dict[str, set[Run]] = {}
    for study in STUDIES:
        for run in study_runs(done.setup, study, (50,)):
            shared.setdefault(run.label, set()).add(run)
    assert all(len(same) == 1 for same in shared.values())
    assert {"smartbert", "recipe-paper", "target-two-thirds"} < set(shared)
