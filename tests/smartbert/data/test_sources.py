"""sources.py with --dataset: local data set folders through `datasets`, their splits and declared label names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from smartbert.data.sources import DataSource
from smartbert.data.splits import TaskData, load_task
from smartbert_runtime.errors import InputError

TEXTS = [f"text number {number}" for number in range(20)]
LABELS = [number % 2 for number in range(20)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty data set folder."""
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def _csv(file: Path, labels: list[int], texts: list[str] = TEXTS) -> None:
    lines = [f"{text},{label}" for text, label in zip(texts, labels, strict=False)]
    file.write_text("\n".join(["sentence,label", *lines]) + "\n", encoding="utf-8")


def _jsonl(file: Path, labels: list[int]) -> None:
    lines = [json.dumps({"sentence": text, "label": label}) for text, label in zip(TEXTS, labels, strict=False)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _parquet(file: Path, labels: list[int], names: list[str]) -> None:
    features = Features({"sentence": Value("string"), "label": ClassLabel(names=names), "idx": Value("int32")})
    columns = {"sentence": TEXTS[: len(labels)], "label": labels, "idx": list(range(len(labels)))}
    Dataset.from_dict(columns, features=features).to_parquet(file)


def _load(folder: Path, **more: str) -> TaskData:
    return load_task(DataSource(dataset=str(folder), **more), validation_fraction=0.2, seed=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_folder_is_a_data_set(folder: Path, kind: str) -> None:
    write = _csv if kind == "csv" else _jsonl
    write(folder / f"train.{kind}", LABELS)
    write(folder / f"validation.{kind}", [1, 0, 1])
    data = _load(folder)
    assert data.labels == ("0", "1")
    assert data.dev.texts == tuple(TEXTS[:3])
    assert data.dev.label_ids == (1, 0, 1)
    assert sorted(data.train.texts + data.validation.texts) == sorted(TEXTS)
    assert len(data.validation) == 4


def test_declared_label_names_keep_order(folder: Path) -> None:
    # Not in the alphabet's order: 0 is "spam", 1 is "ham".
    _parquet(folder / "train.parquet", LABELS, ["spam", "ham"])
    _parquet(folder / "validation.parquet", [1, 1, 0], ["spam", "ham"])
    data = _load(folder)
    assert data.labels == ("spam", "ham")
    assert data.dev.label_ids == (1, 1, 0)
    assert data.train.label_ids == tuple(LABELS[TEXTS.index(text)] for text in data.train.texts)


def test_parquet_file_with_label_names(folder: Path) -> None:
    _parquet(folder / "train.parquet", LABELS, ["spam", "ham"])
    _parquet(folder / "dev.parquet", [1, 1, 0], ["spam", "ham"])
    source = DataSource(train_file=folder / "train.parquet", dev_file=folder / "dev.parquet")
    data = load_task(source, validation_fraction=0.2, seed=1)
    assert [data.labels[number] for number in data.dev.label_ids] == ["ham", "ham", "spam"]
    assert data.labels == ("spam", "ham")  # declared order here as well, so that label ids mean the same


def test_declared_but_unused_label(folder: Path) -> None:
    _parquet(folder / "train.parquet", LABELS, ["no", "yes", "maybe"])
    _parquet(folder / "validation.parquet", [2, 0, 1], ["no", "yes", "maybe"])
    data = _load(folder)
    assert data.labels == ("no", "yes", "maybe")
    assert data.dev.label_ids == (2, 0, 1)


def test_unused_label_needs_no_dev_text(folder: Path) -> None:
    _parquet(folder / "train.parquet", LABELS, ["no", "yes", "maybe"])
    _parquet(folder / "validation.parquet", [1, 0], ["no", "yes", "maybe"])
    assert _load(folder).dev.label_ids == (1, 0)


def test_named_dev_split(folder: Path) -> None:
    for split, labels in (("train", LABELS), ("validation", [0, 1]), ("test", [1, 1, 0])):
        _csv(folder / f"{split}.csv", labels)
    assert _load(folder).dev.label_ids == (0, 1)
    assert _load(folder, dev_split="test").dev.label_ids == (1, 1, 0)


def test_test_split_without_validation(folder: Path) -> None:
    _csv(folder / "train.csv", LABELS)
    _csv(folder / "test.csv", [1, 1, 0])
    assert _load(folder).dev.label_ids == (1, 1, 0)


def test_missing_dev_split(folder: Path) -> None:
    _csv(folder / "train.csv", LABELS)
    with pytest.raises(InputError, match="no split validation or dev or") as caught:
        _load(folder)
    assert "its splits: train" in caught.value.hint
    with pytest.raises(InputError, match="no split heldout"):
        _load(folder, dev_split="heldout")


def test_missing_train_split(folder: Path) -> None:
    _csv(folder / "test.csv", LABELS)
    with pytest.raises(InputError, match="has no split 'train'") as caught:
        _load(folder)
    assert caught.value.hint == "its splits: test"


def test_hidden_labels_are_refused(folder: Path) -> None:
    # As GLUE's test splits have them.
    _parquet(folder / "train.parquet", LABELS, ["no", "yes"])
    _parquet(folder / "test.parquet", [-1, -1], ["no", "yes"])
    with pytest.raises(InputError, match=r"split test holds unlabeled texts \(label -1\)") as caught:
        _load(folder)
    assert "--dev-split" in caught.value.hint


def test_missing_label_column(folder: Path) -> None:
    for split in ("train", "validation"):
        (folder / f"{split}.csv").write_text("sentence,gold\na,0\nb,1\n", encoding="utf-8")
    with pytest.raises(InputError, match="split train has no column 'label'") as caught:
        _load(folder)
    assert "sentence, gold" in caught.value.hint


def test_empty_label_in_first_row(folder: Path) -> None:
    (folder / "train.csv").write_text("sentence,label\na,\nb,no\nc,yes\n", encoding="utf-8")
    (folder / "validation.csv").write_text("sentence,label\na,no\n", encoding="utf-8")
    with pytest.raises(InputError, match="row 1: label is empty"):
        _load(folder)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the data set .*nowhere cannot be loaded"):
        _load(tmp_path / "nowhere")


def test_empty_folder(folder: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        _load(folder)
