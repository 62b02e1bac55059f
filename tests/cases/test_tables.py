"""Files as libraries write them: missing values, quotes, numbers, booleans, compressed ones; read right, or refused."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from smartbert.data.sources import DataSource
from smartbert.data.splits import TaskData, load_task
from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import Examples, read_examples
from smartbert_runtime.text_files.values import canonical_label, missing_spellings, sorted_labels

TEXTS = [f"{word} film {number}" for number in range(20) for word in ("good", "bad")]


def read(file: Path) -> Examples:
    return read_examples(file, labeled=True)


def load(train: Path, dev: Path) -> TaskData:
    return load_task(DataSource(train_file=train, dev_file=dev), validation_fraction=0.2, seed=1)


def write(file: Path, frame: pandas.DataFrame, **options: Any) -> Path:
    """The table as pandas writes it."""
    kind = file.name.removesuffix(".gz").rsplit(".", 1)[1]
    if kind == "parquet":
        frame.to_parquet(file, index=False)
    elif kind in ("jsonl", "json"):
        frame.to_json(file, orient="records", lines=True)
    else:
        frame.to_csv(file, sep="\t" if kind == "tsv" else ",", index=False, **options)
    return file


# Missing values


@pytest.mark.parametrize("missing", [None, math.nan], ids=str)
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.csv.gz"])
def test_missing_label_names_its_line(tmp_path: Path, name: str, missing: float | None) -> None:
    labels: list[float | None] = [1.0, 0.0] * 20
    labels[6] = missing
    file = write(tmp_path / name, pandas.DataFrame({"text": TEXTS, "label": labels}))
    place = {"csv": "line 8", "tsv": "line 8", "parquet": "row 7"}.get(name.split(".")[1], "line 7")
    with pytest.raises(InputError, match=rf"{place}: label is (empty|missing)"):
        read(file)


@pytest.mark.parametrize("spelling", ["nan", "NaN", "NA", "None", "null", "<NA>"])
def test_missing_label_in_words(tmp_path: Path, spelling: str) -> None:
    frame = pandas.DataFrame({"text": TEXTS[:4], "label": [1, None, 0, 1]})
    with pytest.raises(InputError, match=rf"line 3: label is missing \({spelling}\)"):
        read(write(tmp_path / "a.csv", frame, na_rep=spelling))


def test_word_that_looks_missing_is_a_label(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", pandas.DataFrame({"text": TEXTS[:3], "label": ["None", "some", "NA"]}))
    assert read(file).labels == ("None", "some", "NA")
    assert missing_spellings(["a", "nan"]) == {"nan"}
    assert missing_spellings(["None", "none"]) == frozenset()


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_missing_text(tmp_path: Path, name: str) -> None:
    frame = pandas.DataFrame({"text": ["a", None, "c"], "label": ["x", "y", "x"]})
    with pytest.raises(InputError, match=r"(line|row) 2: text is empty"):
        read(write(tmp_path / name, frame))


# Numbers and booleans


def test_numbers_sort_as_numbers(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"text": [f"text {n}" for n in range(48)], "label": [n % 12 for n in range(48)]})
    data = load(write(tmp_path / "train.csv", frame), write(tmp_path / "dev.csv", frame))
    assert data.labels == tuple(str(number) for number in range(12))


KINDS = ["train.csv", "train.tsv", "train.jsonl", "train.parquet"]


@pytest.mark.parametrize("dev", ["dev.csv", "dev.tsv", "dev.jsonl", "dev.parquet"])
@pytest.mark.parametrize("train", KINDS)
@pytest.mark.parametrize("kind", ["booleans", "floats", "upper"])
def test_labels_match_between_formats(tmp_path: Path, train: str, dev: str, kind: str) -> None:
    values = [True, False] * 20
    own: list[object] = {"booleans": [*values], "floats": [1.0, 0.0] * 20, "upper": ["TRUE", "FALSE"] * 20}[kind]  # type: ignore[assignment]
    other: list[object] = [1, 0] * 20 if kind == "floats" else [*values]
    frames = (pandas.DataFrame({"text": TEXTS, "label": labels}) for labels in (own, other))
    data = load(*(write(tmp_path / name, frame) for name, frame in zip((train, dev), frames, strict=True)))
    assert data.labels == (("0", "1") if kind == "floats" else ("false", "true"))
    assert set(data.dev.label_ids) == {0, 1}


@pytest.mark.parametrize(
    ("spelling", "label"),
    [
        ("1.0", "1"),
        ("-0", "0"),
        ("+2", "2"),
        ("0.50", "0.5"),
        ("1e+16", "1e+16"),
        ("True", "true"),
        ("007", "007"),
        ("1e3", "1e3"),
        ("1_000", "1_000"),
        ("inf", "inf"),
        ("\u0661", "\u0661"),
        ("spam", "spam"),
        ("", ""),
    ],
)
def test_one_spelling(spelling: str, label: str) -> None:
    assert canonical_label(spelling) == label
    assert canonical_label(label) == label


def test_mixed_labels_sort_as_words() -> None:
    assert sorted_labels(["10", "9", "b", "a"]) == ("10", "9", "a", "b")
    assert sorted_labels(["-1", "10", "9", "0.5"]) == ("-1", "0.5", "9", "10")


# Quotes


def test_quotes_that_a_csv_writer_put_are_undone(tmp_path: Path) -> None:
    texts = [f'She said "{text}" twice' for text in TEXTS]
    frame = pandas.DataFrame({"text": texts, "label": ["pos", "neg"] * 20})
    assert read(write(tmp_path / "a.tsv", frame)).texts == tuple(texts)
    assert read(write(tmp_path / "b.tsv", frame, quoting=1)).texts == tuple(texts)
    assert read(write(tmp_path / "b.tsv", frame, quoting=1)).labels == ("pos", "neg") * 20


def test_quotes_of_the_text_are_kept(tmp_path: Path) -> None:
    """As in GLUE's files, which have no quoting."""
    texts = ['" The food , " he said', '"All of it."', 'he said "no', '"', '""', 'a "" b']
    lines = "".join(f"{text}\tx\n" for text in texts)
    (tmp_path / "a.tsv").write_text("sentence\tlabel\n" + lines, encoding="utf-8")
    assert read(tmp_path / "a.tsv").texts == tuple(texts)


def test_tab_in_a_quoted_cell_is_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.tsv", pandas.DataFrame({"text": ["a\tb"], "label": ["x"]}))
    with pytest.raises(InputError, match="line 2: 3 fields where the header has 2") as refused:
        read(file)
    assert "save it as csv" in refused.value.hint


# Formats


def test_long_cell(tmp_path: Path) -> None:
    text = "word " * 200_000
    for name in ("a.csv", "a.tsv", "a.jsonl", "a.parquet"):
        file = write(tmp_path / name, pandas.DataFrame({"text": [text], "label": ["x"]}))
        assert read(file).texts == (text,)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet"])
def test_every_format_reads_alike(tmp_path: Path, name: str) -> None:
    frame = pandas.DataFrame({"text": TEXTS, "label": [f"{n % 3}" for n in range(40)]})
    found = read(write(tmp_path / name, frame))
    assert (found.texts, found.labels) == (tuple(TEXTS), tuple(f"{n % 3}" for n in range(40)))
    if name != "a.parquet":
        packed = tmp_path / f"{name}.gz"
        packed.write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        assert read(packed).texts == found.texts


def test_damaged_files(tmp_path: Path) -> None:
    packed = gzip.compress(b"text,label\n" + b"a,x\n" * 5000)
    for name, content in {"a.csv.gz": packed[:-20], "b.csv.gz": b"text,label\na,x\n", "a.parquet": b"PAR1"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="cannot be read"):
            read(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "none.parquet")


def test_list_in_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"text": "a"}], indent=1), encoding="utf-8")
    with pytest.raises(InputError, match="line 1: not JSON") as refused:
        read_examples(tmp_path / "a.json", Columns())
    assert "one JSON object a line" in refused.value.hint


def test_name_is_taken_literally(tmp_path: Path) -> None:
    """No pattern, no cache: a file whose name looks like one is read, and no other."""
    for name, label in (("a[1].parquet", "right"), ("a1.parquet", "wrong")):
        pyarrow.parquet.write_table(pyarrow.table({"text": ["a"], "label": [label]}), tmp_path / name)
    assert read(tmp_path / "a[1].parquet").labels == ("right",)


def test_what_was_read_is_described(tmp_path: Path) -> None:
    frame = pandas.DataFrame({"text": TEXTS, "label": ["pos", "neg"] * 20})
    found = read(write(tmp_path / "a.csv", frame))
    assert found.describe().endswith("a.csv: 40 texts from 'text', 2 labels from 'label': pos 20, neg 20")
    file = write(tmp_path / "b.csv", pandas.DataFrame({"question1": ["a"], "question2": ["b"]}))
    assert read_examples(file).describe().endswith("1 pairs of texts from 'question1' and 'question2'")


def test_class_that_dev_lacks_is_a_remark(tmp_path: Path) -> None:
    train = pandas.DataFrame({"text": TEXTS, "label": ["pos", "neg", "odd", "neg"] * 10})
    files = write(tmp_path / "train.csv", train), write(tmp_path / "dev.csv", train[train.label != "odd"])
    data = load(*files)
    assert data.labels == ("neg", "odd", "pos")
    assert "has no text labeled 'odd'" in data.notes[2]
