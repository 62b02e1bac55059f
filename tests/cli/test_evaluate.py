"""smartbert-evaluate: its report for a person and for a program, its picture, and its bad inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from smartbert.cli.evaluate import main
from smartbert.cli.train import main as train_main
from smartbert.modeling import SmartBertForSequenceClassification
from tests.cli.conftest import Call
from tests.conftest import LABELS, SENTENCES, make_tokenizer
from tests.helpers import assert_named_error


@pytest.fixture
def dev_file(tmp_path: Path) -> Path:
    """All sentences with labels in turn."""
    rows = [f"{text}\t{LABELS[number % 3]}" for number, text in enumerate(SENTENCES)]
    (tmp_path / "dev.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path / "dev.tsv"


def test_json_report(call: Call, checkpoint_dir: Path, dev_file: Path) -> None:
    run = call(main, checkpoint_dir, "--file", dev_file, "--format", "json")
    assert run.code == 0, run.err
    report = json.loads(run.out)
    assert report["texts"] == len(SENTENCES)
    assert set(report["curves"]) == {"both", "gates off", "patience", "exits off"}
    both = {point["value"]: point for point in report["curves"]["both"]}
    assert both[0.0]["accuracy"] == report["full_depth"]["accuracy"]
    assert both[0.0]["mean_layers_run"] == report["full_depth"]["mean_layers_run"]
    # Full depth evaluates no early head; the curve's first point evaluates all of them, and none answers.
    assert both[0.0]["macs"] > report["full_depth_macs"]
    assert [point["value"] for point in report["curves"]["exits off"]] == [0.1, 0.3, 0.5, 0.7, 0.9]
    layers = [point["mean_layers_run"] for point in report["curves"]["exits off"]]
    assert layers == sorted(layers) and layers[0] < layers[-1]


def test_text_report(call: Call, checkpoint_dir: Path, dev_file: Path) -> None:
    run = call(main, checkpoint_dir, "--file", dev_file, "--exit-threshold", "0.3", "--skip-threshold", "0.9")
    assert run.code == 0, run.err
    report = json.loads(
        call(
            main, checkpoint_dir, "--file", dev_file, "--exit-threshold", "0.3", "--skip-threshold", "0.9",
            "--format", "json",
        ).out
    )  # fmt: skip
    assert "exit at 0.3" in run.out
    assert f"{report['summary']['accuracy']:.4f}" in run.out
    assert f"{report['macs'] / report['plain_macs']:.1%}" in run.out
    assert "fewer MAC than plain" in run.out


def test_plot(call: Call, checkpoint_dir: Path, dev_file: Path, tmp_path: Path) -> None:
    run = call(main, checkpoint_dir, "--file", dev_file, "--plot", tmp_path / "curves.png")
    assert run.code == 0, run.err
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("arm", ["plain", "deebert"])
def test_control_arms(call: Call, encoder_dir: Path, dev_file: Path, tmp_path: Path, arm: str) -> None:
    options = ["--arm", arm, "--stage1-epochs", "1", "--stage2-epochs", "1", "--max-length", "24"]
    made = call(
        train_main, "--model", encoder_dir, "--train-file", dev_file, "--dev-file", dev_file,
        "--output", tmp_path / "ckpt", "--validation-fraction", "0.2", *options,
    )  # fmt: skip
    assert made.code == 0, made.err
    run = call(main, tmp_path / "ckpt", "--file", dev_file, "--format", "json")
    assert run.code == 0, run.err
    report = json.loads(run.out)
    trained = json.loads((tmp_path / "ckpt" / "training_report.json").read_text(encoding="utf-8"))
    assert report["summary"] == trained["dev"]
    assert set(report["curves"]) == (set() if arm == "plain" else {"gates off", "patience"})
    if arm == "plain":
        assert report["macs"] == report["plain_macs"]
        assert call(main, tmp_path / "ckpt", "--file", dev_file).out.count("\n") == 4


def test_bad_inputs(call: Call, checkpoint_dir: Path, dev_file: Path, tmp_path: Path) -> None:
    assert_named_error(call(main, tmp_path, "--file", dev_file), "is not a checkpoint", "smartbert-train's OUTPUT")
    assert_named_error(call(main, checkpoint_dir, "--file", tmp_path / "no.tsv"), "no.tsv cannot be read")
    (tmp_path / "other.tsv").write_text("text\tlabel\nfine\tmerry\n", encoding="utf-8")
    assert_named_error(
        call(main, checkpoint_dir, "--file", tmp_path / "other.tsv"), "line 2", "'merry' does not occur", "calm"
    )
    assert_named_error(
        call(main, checkpoint_dir, "--file", dev_file, "--exit-threshold", "1.5"), "from 0 to 1, not 1.5"
    )


def test_unused_option_is_noted(call: Call, encoder_dir: Path, dev_file: Path, tmp_path: Path) -> None:
    names: dict[str, Any] = {"id2label": dict(enumerate(LABELS))}
    model = SmartBertForSequenceClassification.from_backbone(
        str(encoder_dir), max_input_length=24, gates=False, **names
    )
    model.save_pretrained(tmp_path / "ckpt")
    make_tokenizer().save_pretrained(tmp_path / "ckpt")
    run = call(main, tmp_path / "ckpt", "--file", dev_file, "--skip-threshold", "0.4", "--exit-threshold", "0.4")
    assert run.code == 0
    read, unused = run.err.splitlines()
    assert read.endswith("24 texts from 'text', 3 labels from 'label': calm 8, loud 8, odd 8")
    assert unused == "note: the checkpoint has no gates; --skip-threshold changes nothing"
    options = "--file", dev_file, "--skip-threshold", "0.4", "--quiet"
    assert call(main, tmp_path / "ckpt", *options).err == ""


def test_unwritable_plot_is_refused(call: Call, checkpoint_dir: Path, dev_file: Path, tmp_path: Path) -> None:
    for picture in (tmp_path / "nowhere" / "curves.png", tmp_path / "curves.txt"):
        run = call(main, checkpoint_dir, "--file", dev_file, "--plot", picture)
        assert_named_error(run, "cannot be drawn", "a .png or .svg file in a folder that exists")
