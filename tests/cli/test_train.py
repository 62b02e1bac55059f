"""smartbert-train's bad inputs, named before any training starts, and its summary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from smartbert.cli.train import main
from tests.cli.conftest import Call
from tests.conftest import SENTENCES
from tests.helpers import assert_named_error
from tests.smartbert.conftest import TINY_SETTINGS
from tests.smartbert.training.command import arguments

ROWS = [(text, ("calm", "loud")[number % 2]) for number, text in enumerate(SENTENCES)]
GOOD = "text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in ROWS)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "train.tsv").write_text(GOOD, encoding="utf-8")
    (tmp_path / "dev.tsv").write_text(GOOD, encoding="utf-8")
    return tmp_path


def train(call: Call, encoder: Path, files: Path, *options: str | Path, words: list[str]) -> None:
    """A call that must fail and leave the folder as it was."""
    before = {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()}
    data = ("--train-file", files / "train.tsv", "--dev-file", files / "dev.tsv")
    given = options if "--train-file" in options or "--dataset" in options else (*data, *options)
    assert_named_error(call(main, "--model", encoder, "--output", files / "ckpt", *given), *words)
    assert {path.name: path.read_bytes() for path in files.iterdir() if path.is_file()} == before
    assert [path.name for path in files.iterdir() if path.is_dir()] == [], "no folder is left behind"


BAD_FILES = {
    "a label unseen in training": (
        "dev.tsv",
        b"text\tlabel\nfine\tcalm\nfine\todd\n",
        ["dev.tsv, line 3: the label 'odd' does not occur in training", "labels in training: calm, loud"],
    ),
    "one class only": ("train.tsv", b"text\tlabel\na\tcalm\nb\tcalm\n", ["all texts have one label, 'calm'"]),
    "too few texts": ("train.tsv", b"text\tlabel\na\tcalm\nb\tloud\n", ["too few texts to keep 10% back"]),
    "no label column": ("train.tsv", b"text\tclass\na\tcalm\n", ["no column 'label'", "text, class", "--label-column"]),
    "no text column": ("train.tsv", b"body\tlabel\na\tcalm\n", ["which column holds the text?", "body, label"]),
    "invalid UTF-8": ("dev.tsv", b"text\tlabel\nfine\tcalm\nGr\xf6\xdfe\tcalm\n", ["dev.tsv, line 3: not UTF-8 text"]),
    "an empty text": ("train.tsv", b"text\tlabel\na\tcalm\n \tloud\n", ["train.tsv, line 3: text is empty"]),
    "a missing field": ("train.tsv", b"text\tlabel\na\tcalm\nb\n", ["train.tsv, line 3: 1 fields"]),
    "an empty file": ("train.tsv", b"", ["train.tsv holds no rows"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file(call: Call, encoder_dir: Path, files: Path, case: str) -> None:
    name, content, words = BAD_FILES[case]
    (files / name).write_bytes(content)
    train(call, encoder_dir, files, words=words)


def test_broken_jsonl(call: Call, encoder_dir: Path, files: Path) -> None:
    (files / "train.jsonl").write_text('{"text": "a", "label": "calm"}\n{"text": "b" "label"}\n', encoding="utf-8")
    options = ("--train-file", files / "train.jsonl", "--dev-file", files / "dev.tsv")
    train(call, encoder_dir, files, *options, words=["train.jsonl, line 2: not JSON"])


def test_missing_file(call: Call, encoder_dir: Path, files: Path) -> None:
    options = ("--train-file", files / "no.tsv", "--dev-file", files / "dev.tsv")
    train(call, encoder_dir, files, *options, words=["no.tsv cannot be read"])


def test_unknown_column(call: Call, encoder_dir: Path, files: Path) -> None:
    train(call, encoder_dir, files, "--text-column", "body", words=["has no column 'body'", "text, label"])


@pytest.mark.parametrize("kind", ["missing", "no files", "weights missing"])
def test_bad_encoder(call: Call, encoder_dir: Path, files: Path, kind: str) -> None:
    encoder = files.parent / f"{files.name}-encoder"
    if kind != "missing":
        encoder.mkdir()
    if kind == "weights missing":
        (encoder / "config.json").write_bytes((encoder_dir / "config.json").read_bytes())
    words = ["cannot be loaded", "config.json and model.safetensors"]
    train(call, encoder, files, "--max-length", "24", words=words)


def test_existing_output_is_kept(call: Call, encoder_dir: Path, files: Path) -> None:
    (files / "ckpt").mkdir()
    (files / "ckpt" / "mine.txt").write_text("mine", encoding="utf-8")
    data = ("--train-file", files / "train.tsv", "--dev-file", files / "dev.tsv")
    run = call(main, "--model", encoder_dir, "--output", files / "ckpt", *data)
    assert_named_error(run, "ckpt exists already", "--overwrite")
    assert (files / "ckpt" / "mine.txt").read_text(encoding="utf-8") == "mine"
    assert sorted(path.name for path in files.iterdir()) == ["ckpt", "dev.tsv", "train.tsv"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--stage1-epochs", "0"], ["stage1_epochs must be 1 or more, not 0", "--stage1-epochs"]),
        (
            ["--stage1-epochs", "4", "--ungated-epochs", "1", "--soft-epochs", "4"],
            [
                "soft_epochs must be from 0 to the 4 of --stage1-epochs, --ungated-epochs counted, not 4",
                "--soft-epochs",
            ],
        ),
        (
            ["--stage1-epochs", "4", "--soft-epochs", "0", "--ungated-epochs", "5"],
            ["ungated_epochs must be from 0 to the 4 of --stage1-epochs, not 5", "--ungated-epochs"],
        ),
        (["--head-width", "128", "--exit-heads", "3"], ["exit_heads must be a divisor of head_width 128, not 3"]),
        (["--validation-fraction", "1"], ["validation_fraction must be between 0 and 1"]),
        (["--temperature1", "0"], ["temperature1 must be above 0"]),
        (["--max-length", "24", "--target-layers", "4"], ["target_layers must be below the encoder's 4 layers, not 4"]),
        (["--max-length", "33"], ["from 2 to 32", "--max-length"]),
        (["--max-train-samples", "1"], ["max_train_samples must be 2 or more"]),
        (["--resume", "--max-length", "24"], ["there is nothing to resume in"]),
        (["--dataset", "nyu-mll/glue", "--train-file", "x.tsv"], ["name the data once"]),
        (["--train-file", "x.tsv"], ["--train-file and --dev-file go together"]),
    ],
    ids=lambda value: " ".join(value) if value[0].startswith("--") else "",
)
def test_bad_setting(call: Call, encoder_dir: Path, files: Path, options: list[str], words: list[str]) -> None:
    train(call, encoder_dir, files, *options, words=words)


@pytest.mark.parametrize("arm", ["no-gates", "plain"])
def test_summary_of_unexportable_arms(call: Call, encoder_dir: Path, tmp_path: Path, arm: str) -> None:
    settings = replace(TINY_SETTINGS, arm=arm, stage1_epochs=1, soft_epochs=0)
    run = call(main, *arguments(encoder_dir, tmp_path, settings))
    assert run.code == 0, run.err
    titles = [line[:16].rstrip() for line in run.out.splitlines()]
    measured = {"plain": [], "no-gates": ["exit threshold", "computation"]}[arm]
    assert set(titles) == {"checkpoint", "dev accuracy", "layers run", *measured}
