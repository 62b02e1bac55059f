"""Runs: the content of a run's file, and when a run is or is not repeated."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from filelock import FileLock

from smartbert.evaluation.curves import SAVINGS
from smartbert.evaluation.macs import layer_macs
from smartbert.training.settings import MIXED_PRECISIONS
from smartbert.training.stages import trains_in_bf16
from smartbert_runtime.errors import InputError, TrainingError
from studies.training.figures import CURVE_COLUMNS
from studies.training.pool import do_runs
from studies.training.runs import digest_once, do_run, encoder_digest_once, is_done
from tests.conftest import make_encoder_config
from tests.smartbert.conftest import DEV_TEXTS
from tests.studies.training.conftest import Done


def test_file_has_figures_and_conditions(done: Done) -> None:
    figures = done.figures("smartbert", 50)
    assert (figures["task"], figures["arm"], figures["backbone"], figures["seed"]) == (
        "trec6",
        "smartbert",
        "encoder",
        50,
    )
    assert figures["note"] == "a tiny encoder"
    assert figures["texts"]["dev"] == len(DEV_TEXTS)
    assert figures["conditions"]["torch"] and figures["conditions"]["threads"] >= 1
    assert set(figures["curves"]) == {"both", "gates off", "patience", "exits off"}
    for rows in figures["curves"].values():
        assert all(len(row) == len(CURVE_COLUMNS) for row in rows)


def test_curve_gets_cheaper_with_threshold(done: Done) -> None:
    figures = done.figures("smartbert", 50)
    rows = figures["curves"]["both"]
    shares = [row[-1] for row in rows]
    assert rows[0][0] == 0.0
    assert shares == sorted(shares, reverse=True)
    assert rows[0][1] == pytest.approx(figures["full_depth"]["accuracy"], abs=1e-5)


def test_correct_texts_match_accuracy(done: Done) -> None:
    for label in ("smartbert", "deebert", "plain-mean"):
        figures = done.figures(label, 51)
        right = figures["right"]["full depth"]
        assert len(right) == len(DEV_TEXTS)
        assert right.count("1") / len(right) == pytest.approx(figures["full_depth"]["accuracy"])
    curve = {row[0]: row[1] for row in done.figures("deebert", 50)["curves"]["gates off"]}
    checked = 0
    for place in done.figures("deebert", 50)["at"]["gates off"].values():
        for value, right in zip(place["values"], place["right"], strict=True):
            if value in curve:  # points at which nothing changes are left out of the file
                assert right.count("1") / len(right) == pytest.approx(curve[value], abs=1e-5)
                checked += 1
    assert checked > 0


def test_texts_at_a_saving_cost_that(done: Done) -> None:
    figures = done.figures("deebert", 50)
    share_of = {row[0]: row[-1] for row in figures["curves"]["gates off"]}
    checked = 0
    for saving in SAVINGS:
        place = figures["at"]["gates off"].get(f"{saving:g}")
        if place is None or not all(value in share_of for value in place["values"]) or place["share"] == 0.0:
            continue
        cheap, costly = (share_of[value] for value in place["values"])
        assert (1 - place["share"]) * cheap + place["share"] * costly == pytest.approx(1 / saving, abs=1e-4)
        checked += 1
    assert checked > 0


def test_truncated_costs_against_whole_encoder(done: Done) -> None:
    # Two of four layers, and nothing else of any size: half of plain fine-tuning's MAC.
    assert done.figures("truncated-2", 50)["full_depth"]["mac_share"] == pytest.approx(0.5, abs=0.01)
    assert done.figures("plain-mean", 50)["full_depth"]["mac_share"] == pytest.approx(1.0)
    whole = layer_macs(make_encoder_config().to_dict(), np.array([10]))[0] * 4
    assert done.figures("plain-mean", 50)["plain_macs"] > whole / 2


def test_arm_without_gates_never_skips(done: Done) -> None:
    figures = done.figures("deebert", 50)
    assert set(figures["curves"]) == {"gates off", "patience"}
    assert figures["full_depth"]["skip_rate"] == [0.0] * 4


def test_run_is_known_by_settings(done: Done) -> None:
    run = done.runs[0]
    assert is_done(run, done.results)
    assert not is_done(replace(run, settings=replace(run.settings, gate_lambda=0.5)), done.results)
    assert not is_done(replace(run, max_train_samples=30), done.results)
    assert not is_done(replace(run, settings=replace(run.settings, seed=52)), done.results)


def test_unused_settings_do_not_count(done: Done, tmp_path: Path) -> None:
    results = Path(shutil.copytree(done.results, tmp_path / "results"))

    def still_done(label: str, **written: object) -> bool:
        run = next(run for run in done.runs if run.label == label)
        figures = json.loads(run.file(done.results).read_text(encoding="utf-8"))
        figures["run"]["settings"].update(written)  # as an older version's default would have it
        run.file(results).write_text(json.dumps(figures), encoding="utf-8")
        return is_done(run, results)

    assert still_done("plain-mean", gate_lambda=0.5, ungated_epochs=1, head_width=8)
    assert not still_done("plain-mean", learning_rate=0.5)
    assert still_done("deebert", gate_lambda=0.5) and not still_done("deebert", head_width=8)
    assert not still_done("smartbert", gate_lambda=0.5)
    assert not still_done("smartbert", a_setting_of_another_version=1)


def test_start_from_another_runs_checkpoint(done: Done, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("warm")
    plain = next(run for run in done.runs if run.label == "plain-mean" and run.settings.seed == 50)
    run = done.setup.run("warm", start=plain, seed=50, ungated_epochs=0, soft_epochs=0, stage1_epochs=1)
    lines: list[str] = []
    do_run(run, folder / "results", folder / "work", keep_checkpoint=False, log=lines.append)
    warm = json.loads(run.file(folder / "results").read_text(encoding="utf-8"))
    assert (warm["arm"], warm["backbone"]) == ("warm", "encoder")
    assert warm["plain_macs"] == done.figures("plain-mean", 50)["plain_macs"]
    assert any(str(plain.checkpoint(folder / "work")) in line for line in lines)  # trained further from there
    assert not list(folder.rglob("*.safetensors"))


def test_run_is_known_by_texts_and_encoder(done: Done, tmp_path: Path) -> None:
    run = done.runs[0]
    assert run.data is not None
    data = Path(shutil.copytree(run.data, tmp_path / "data", symlinks=True))
    assert is_done(replace(run, data=data), done.results)
    with (data / "trec6" / "train.tsv").open("a", encoding="utf-8") as file:
        file.write("One more!\tloud\n")
    digest_once.cache_clear()
    assert not is_done(replace(run, data=data), done.results)
    encoder = Path(shutil.copytree(run.model, tmp_path / "encoder"))
    assert is_done(replace(run, model=str(encoder)), done.results)
    (encoder / "model.safetensors").write_bytes((encoder / "model.safetensors").read_bytes() + b" ")
    encoder_digest_once.cache_clear()
    assert not is_done(replace(run, model=str(encoder)), done.results)


def test_another_runs_file_is_kept(done: Done, tmp_path: Path) -> None:
    results = Path(shutil.copytree(done.results, tmp_path / "results"))
    quick = replace(done.runs[0], max_train_samples=40)
    before = quick.file(results).read_bytes()
    with pytest.raises(InputError, match="holds a run with other settings, texts or encoder") as caught:
        do_runs([quick], results, tmp_path / "work")
    assert "--overwrite" in caught.value.hint
    assert quick.file(results).read_bytes() == before


def test_checkpoint_folders_differ(done: Done, tmp_path: Path) -> None:
    run = done.runs[0]
    places = {run.checkpoint(tmp_path), replace(run, max_train_samples=40).checkpoint(tmp_path)}
    places.add(replace(run, settings=replace(run.settings, gate_lambda=0.5)).checkpoint(tmp_path))
    assert len(places) == 3


def test_failed_run_does_not_stop_others(done: Done, tmp_path: Path) -> None:
    plain = next(run for run in done.runs if run.label == "plain-mean")
    good = replace(
        plain, label="good", settings=replace(plain.settings, stage1_epochs=1, ungated_epochs=0, soft_epochs=0)
    )
    bad = replace(good, label="bad", settings=replace(good.settings, learning_rate=1e38))
    lines: list[str] = []
    with pytest.raises(TrainingError):
        do_runs([bad, good], tmp_path / "results", tmp_path / "work", log=lines.append)
    assert good.file(tmp_path / "results").exists() and not bad.file(tmp_path / "results").exists()
    assert [line for line in lines if "bad-seed50" in line and "FAILED" in line]


def test_unwritable_folder_is_refused(done: Done, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for results, work in ((tmp_path / "file", tmp_path / "work"), (tmp_path / "results", tmp_path / "file" / "work")):
        with pytest.raises(InputError, match="cannot be written"):
            do_runs([done.runs[0]], results, work)


def test_checkpoints_are_removed(done: Done) -> None:
    assert not list(done.work.rglob("*.safetensors"))


def test_interrupted_run_is_resumed(done: Done, tmp_path_factory: pytest.TempPathFactory) -> None:
    class Stop(Exception):
        pass

    def stop_in_stage_2(line: str) -> None:
        if line.startswith("stage 2"):
            raise Stop

    folder = tmp_path_factory.mktemp("interrupted")
    run = done.runs[0]
    with pytest.raises(Stop):
        do_run(run, folder / "results", folder / "work", keep_checkpoint=False, log=stop_in_stage_2)
    assert not (folder / "results").exists()
    lines: list[str] = []
    do_run(run, folder / "results", folder / "work", keep_checkpoint=False, log=lines.append)
    assert not [line for line in lines if line.startswith("stage 1: epoch")]
    again = json.loads(run.file(folder / "results").read_text(encoding="utf-8"))
    assert again["curves"] == done.figures("smartbert", 50)["curves"]


def test_run_in_progress_is_refused(done: Done, tmp_path: Path) -> None:
    run = done.runs[0]
    checkpoint = run.checkpoint(tmp_path / "work")
    checkpoint.parent.mkdir(parents=True)
    with (
        FileLock(checkpoint.with_name(f"{checkpoint.name}.lock")),
        pytest.raises(InputError, match="is being trained by another process"),
    ):
        do_run(run, tmp_path / "results", tmp_path / "work", keep_checkpoint=False)
    assert [file.suffix for file in checkpoint.parent.iterdir()] == [".lock"]


def test_killed_process_can_be_repeated(done: Done, tmp_path: Path) -> None:
    plain = next(run for run in done.runs if run.label == "plain-mean")

    def kill() -> None:
        while not list((tmp_path / "work").rglob("run.json")):
            time.sleep(0.01)
        for child in active_children():
            child.kill()

    killer = Thread(target=kill)
    killer.start()
    with pytest.raises(TrainingError, match="process was killed") as caught:
        do_runs([plain], tmp_path / "results", tmp_path / "work")
    killer.join()
    assert "--jobs" in caught.value.hint
    do_runs([plain], tmp_path / "results", tmp_path / "work")
    assert is_done(plain, tmp_path / "results")


def test_auto_precision_is_part_of_identity(done: Done) -> None:
    run = done.runs[0]
    auto, fp32, bf16 = (replace(run, settings=replace(run.settings, mixed_precision=name)) for name in MIXED_PRECISIONS)
    assert fp32.identity() != bf16.identity()
    assert auto.identity() == (bf16 if trains_in_bf16(auto.settings) else fp32).identity()
