"""splits.py, and sources.py on files: label numbers, and the split that keeps validation texts out of training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset

from smartbert.data.sources import DataSource
from smartbert.data.splits import Split, TaskData, load_task
from smartbert_runtime.errors import ConfigError, InputError
from smartbert_runtime.text_files.columns import Columns

Row = tuple[str, str]  # text, label

# Twenty texts in no order of labels, and four to report on.
TRAIN = [(f"text number {number}", ("loud", "calm", "odd")[number % 3]) for number in range(20)]
DEV = [("dev one", "odd"), ("dev two", "calm"), ("dev three", "loud"), ("dev four", "calm")]
LABEL_IDS = {"calm": 0, "loud": 1, "odd": 2}  # sorted


def _write(file: Path, rows: list[Row]) -> Path:
    """`rows` in the format that the file's ending names."""
    file.parent.mkdir(parents=True, exist_ok=True)
    kind = file.suffix
    if kind == ".jsonl":
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    elif kind == ".parquet":
        Dataset.from_dict({"text": [row[0] for row in rows], "label": [row[1] for row in rows]}).to_parquet(file)
        return file
    else:
        separator = "\t" if kind == ".tsv" else ","
        lines = [separator.join(row) for row in [("text", "label"), *rows]]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def _files(folder: Path, train: list[Row], dev: list[Row], kind: str = ".tsv", **more: object) -> DataSource:
    return DataSource(
        train_file=_write(folder / f"train{kind}", train),
        dev_file=_write(folder / f"dev{kind}", dev),
        **more,  # type: ignore[arg-type]
    )


def _load(source: DataSource, fraction: float = 0.2, seed: int = 1) -> TaskData:
    return load_task(source, validation_fraction=fraction, seed=seed)


def _rows(split: Split, labels: tuple[str, ...]) -> list[Row]:
    return [(text, labels[number]) for text, number in zip(split.texts, split.label_ids, strict=True)]


@pytest.mark.parametrize("kind", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_file_formats_give_the_same_split(tmp_path: Path, kind: str) -> None:
    data = _load(_files(tmp_path, TRAIN, DEV, kind))
    assert data.labels == ("calm", "loud", "odd")
    assert _rows(data.dev, data.labels) == DEV
    assert data.dev.label_ids == (2, 0, 1, 0)
    assert len(data.validation) == 4  # a fifth of twenty
    assert sorted(_rows(data.train, data.labels) + _rows(data.validation, data.labels)) == sorted(TRAIN)
    assert replace(data, notes=()) == replace(_load(_files(tmp_path / "tsv", TRAIN, DEV, ".tsv")), notes=())


def test_rows_keep_their_order(tmp_path: Path) -> None:
    data = _load(_files(tmp_path, TRAIN, DEV))
    for split in (data.train, data.validation):
        places = [TRAIN.index(row) for row in _rows(split, data.labels)]
        assert places == sorted(places)


def test_split_depends_on_seed(tmp_path: Path) -> None:
    source = _files(tmp_path, TRAIN, DEV)
    assert _load(source, seed=1) == _load(source, seed=1)
    assert _load(source, seed=1).validation.texts != _load(source, seed=2).validation.texts
    reordered = _load(_files(tmp_path / "b", TRAIN[::-1], DEV), seed=1)
    assert set(reordered.validation.texts) == set(_load(source, seed=1).validation.texts)


def test_repeated_text_stays_on_one_side(tmp_path: Path) -> None:
    # Each text three times, once with another label: a third of 12 different texts is 4, so 12 rows.
    rows = [(f"text {number}", label) for label in ("a", "b", "a") for number in range(12)]
    for seed in range(5):
        data = _load(_files(tmp_path, rows, [("x", "a"), ("y", "b")]), fraction=1 / 3, seed=seed)
        assert not set(data.train.texts) & set(data.validation.texts)
        assert (len(data.train), len(data.validation)) == (24, 12)


def test_text_pairs(tmp_path: Path) -> None:
    lines = [f"first {number}\tsecond {number % 5}\t{number % 2}" for number in range(20)]
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *lines]) + "\n")
    source = DataSource(train_file=tmp_path / "train.tsv", dev_file=tmp_path / "dev.tsv")
    data = _load(source)
    assert data.labels == ("0", "1")
    for split in (data.train, data.validation, data.dev):
        assert split.pairs is not None
        for text, pair, label_id in zip(split.texts, split.pairs, split.label_ids, strict=True):
            number = int(text.removeprefix("first "))
            assert (pair, label_id) == (f"second {number % 5}", number % 2)


def test_pair_identity_includes_second_text(tmp_path: Path) -> None:
    lines = [f"always this\tsecond {number}\t{number % 2}" for number in range(20)]
    for name in ("train", "dev"):
        (tmp_path / f"{name}.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *lines]) + "\n")
    data = _load(DataSource(train_file=tmp_path / "train.tsv", dev_file=tmp_path / "dev.tsv"))
    assert (len(data.train), len(data.validation)) == (16, 4)


def test_pairs_in_one_file_only(tmp_path: Path) -> None:
    train = tmp_path / "pairs.tsv"
    train.write_text("sentence1\tsentence2\tlabel\na\tb\t0\nc\td\t1\n", encoding="utf-8")
    source = DataSource(train_file=train, dev_file=_write(tmp_path / "dev.tsv", DEV))
    with pytest.raises(InputError, match="one file has text pairs and the other single texts"):
        _load(source)


def test_named_columns(tmp_path: Path) -> None:
    for name in ("train", "dev"):
        rows = [f"{number},nonsense,said {number},{'yes' if number % 2 else 'no'}" for number in range(20)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["id,text,utterance,intent", *rows]) + "\n", encoding="utf-8")
    columns = Columns(text="utterance", label="intent")
    data = _load(DataSource(train_file=tmp_path / "train.csv", dev_file=tmp_path / "dev.csv", columns=columns))
    assert data.labels == ("no", "yes")
    assert data.dev.texts[:2] == ("said 0", "said 1")


def test_max_train_samples(tmp_path: Path) -> None:
    data = _load(_files(tmp_path, TRAIN, DEV, max_train_samples=10))
    assert sorted(data.train.texts + data.validation.texts) == sorted(text for text, _ in TRAIN[:10])
    assert len(data.dev) == 4
    assert len(_load(_files(tmp_path, TRAIN, DEV, max_train_samples=1000)).train) == 16


def test_unknown_dev_label(tmp_path: Path) -> None:
    source = _files(tmp_path, TRAIN, [*DEV[:2], ("what is this", "weird")])
    with pytest.raises(InputError, match=r"dev\.tsv, line 4: the label 'weird' does not occur in training") as caught:
        _load(source)
    assert caught.value.hint == "labels in training: calm, loud, odd"


def test_class_without_dev_texts(tmp_path: Path) -> None:
    data = _load(_files(tmp_path, TRAIN, [row for row in DEV if row[1] != "loud"]))
    assert data.labels == ("calm", "loud", "odd")
    assert data.notes[-1].endswith("dev.tsv has no text labeled 'loud': its figures say nothing about that")


def test_one_class_is_refused(tmp_path: Path) -> None:
    source = _files(tmp_path, [("a", "calm"), ("b", "calm")], [("c", "calm")])
    with pytest.raises(InputError, match=r"train\.tsv: all texts have one label, 'calm'") as caught:
        _load(source)
    assert "at least two classes" in caught.value.hint


def test_too_few_texts_to_split(tmp_path: Path) -> None:
    # A tenth of 4 texts rounds to none.
    with pytest.raises(InputError, match=r"too few texts to keep 10% back") as caught:
        _load(_files(tmp_path, TRAIN[:4], DEV), fraction=0.1)
    assert "--validation-fraction" in caught.value.hint


def test_split_that_takes_a_whole_class(tmp_path: Path) -> None:
    # One different text a class: whichever is kept back, training is left with one class.
    rows = [("only text of a", "a"), ("only text of b", "b")] * 5
    with pytest.raises(InputError, match="too few texts to keep 50% back"):
        _load(_files(tmp_path, rows, rows[:2]), fraction=0.5)


def test_first_samples_lack_a_class(tmp_path: Path) -> None:
    rows = [(f"{label} {number}", label) for label in ("a", "b", "c") for number in range(10)]
    with pytest.raises(InputError, match="no text with the label 'c' is left to train on") as caught:
        _load(_files(tmp_path, rows, rows[::10], max_train_samples=20), fraction=0.1)
    assert "of a sorted file" in caught.value.hint


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"train_file": Path("a.tsv"), "dataset": "b"},
        {"dev_file": Path("a.tsv"), "dataset": "b"},
    ],
)
def test_source_must_be_one(names: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="name the data once: --train-file with --dev-file, or --dataset"):
        DataSource(**names)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["train_file", "dev_file"])
def test_one_file_without_the_other(name: str) -> None:
    with pytest.raises(ConfigError, match="--train-file and --dev-file go together"):
        DataSource(**{name: Path("a.tsv")})  # type: ignore[arg-type]


def test_fewer_than_two_samples() -> None:
    with pytest.raises(ConfigError, match="max_train_samples must be 2 or more"):
        DataSource(dataset="b", max_train_samples=1)


@pytest.mark.parametrize("kind", [".tsv", ".parquet"])
def test_missing_file(tmp_path: Path, kind: str) -> None:
    missing = tmp_path / f"nowhere{kind}"
    source = DataSource(train_file=missing, dev_file=_write(tmp_path / "dev.tsv", DEV))
    with pytest.raises(InputError, match=r"nowhere\.\w+ cannot be read"):
        _load(source)


def test_damaged_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_text("not parquet at all", encoding="utf-8")
    source = DataSource(train_file=tmp_path / "train.parquet", dev_file=_write(tmp_path / "dev.tsv", DEV))
    with pytest.raises(InputError, match=r"train\.parquet cannot be read"):
        _load(source)


@pytest.mark.parametrize("kind", [".tsv", ".csv", ".jsonl", ".parquet"])
def test_empty_text(tmp_path: Path, kind: str) -> None:
    line = {".tsv": 4, ".csv": 4, ".jsonl": 3, ".parquet": 3}[kind]  # a header is a line too
    source = _files(tmp_path, [*TRAIN[:2], (" ", "calm"), *TRAIN[2:]], DEV, kind)
    with pytest.raises(InputError, match=rf"(line|row) {line}: text is empty"):
        _load(source)
