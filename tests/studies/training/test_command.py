"""python -m studies.training: a table from the command line, runs that are not repeated, bad inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studies.training.__main__ import main
from tests.cli.conftest import Call
from tests.conftest import SENTENCES
from tests.helpers import assert_named_error

SMALL = ("stage1_epochs=1", "ungated_epochs=0", "soft_epochs=0", "stage2_epochs=1", "max_length=24", "head_width=16")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """FOLDER/rte/train.tsv and dev.tsv."""
    folder = tmp_path / "data" / "rte"
    folder.mkdir(parents=True)
    rows = [f"{text}\t{SENTENCES[number - 1]}\t{('no', 'yes')[number % 2]}" for number, text in enumerate(SENTENCES)]
    for name in ("train", "dev"):
        (folder / f"{name}.tsv").write_text("sentence1\tsentence2\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return folder.parent


def test_table_without_repeated_runs(call: Call, encoder_dir: Path, data: Path, tmp_path: Path) -> None:
    options: list[str | Path] = [
        "glue", "--task", "rte", "--model", encoder_dir, "--data", data, "--arms", "plain-mean",
        "--output", tmp_path / "results", "--work", tmp_path / "work", "--note", "made up",
        "--jobs", "2",
    ]  # fmt: skip
    for entry in (*SMALL, "validation_fraction=0.2"):
        options += ["--set", entry]
    run = call(main, *options)
    assert run.code == 0, run.err
    table, picture = (Path(line) for line in run.out.splitlines())
    assert "**made up**" in table.read_text(encoding="utf-8")
    assert picture.read_bytes().startswith(b"\x89PNG")
    file = tmp_path / "results" / "rte" / encoder_dir.name / "plain-mean-seed50.json"
    assert json.loads(file.read_text(encoding="utf-8"))["run"]["settings"]["max_length"] == 24
    made = file.stat().st_mtime_ns
    again = call(main, *options)
    assert again.code == 0 and "1 runs, 1 of them done before" in again.err
    assert file.stat().st_mtime_ns == made


def test_bad_inputs_are_refused(call: Call, encoder_dir: Path, data: Path, tmp_path: Path) -> None:
    base: list[str | Path] = ["glue", "--model", encoder_dir, "--output", tmp_path / "results"]
    assert_named_error(call(main, *base, "--task", "imdb"), "unknown task 'imdb'", "trec6, sst2")
    assert_named_error(call(main, *base, "--task", "trec6"), "trec6 is not read from the hub", "--data")
    assert_named_error(call(main, *base, "--task", "sst2", "--data", data), "train.tsv does not exist")
    rte: list[str | Path] = [*base, "--task", "rte", "--data", data]
    assert_named_error(call(main, *rte, "--arms", "fastbert"), "unknown arm 'fastbert'", "smartbert, plain-mean")
    assert_named_error(call(main, *rte, "--set", "epochs=3"), "'epochs=3' is not a setting")
    assert_named_error(call(main, *rte, "--set", "batch_size=many"), "batch_size is of type int")
    assert_named_error(call(main, *rte, "--set", "contrast_padding=ture"), "contrast_padding is of type bool")
    assert_named_error(call(main, *rte, "--set", "arm=deebert"), "arm is set by the study", "--study, --arms")
    assert_named_error(call(main, *rte, "--study", "layers"), "unknown study 'layers'", "arms, options, gates")
    assert not (tmp_path / "results").exists()
