"""smartbert-infer --file: txt, csv, tsv, jsonl and standard input give the answers that --text gives."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from smartbert_runtime import SmartBert
from smartbert_runtime.cli.infer import main
from tests.cli.conftest import Call
from tests.conftest import SENTENCES

TEXTS = (SENTENCES[2], SENTENCES[20], 'She said "off", twice.')


def as_txt() -> str:
    return "".join(f"{text}\n" for text in TEXTS)


def as_csv() -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([("label", "sentence"), *(("odd", text) for text in TEXTS)])
    return stream.getvalue()


def as_tsv() -> str:
    return "sentence\tlabel\n" + "".join(f"{text}\todd\n" for text in TEXTS)


def as_jsonl() -> str:
    return "".join(json.dumps({"text": text, "label": 1}) + "\n" for text in TEXTS)


def rows_of(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def assert_predictions(out: str, classifier: SmartBert) -> None:
    rows = rows_of(out)
    assert [row["text"] for row in rows] == list(TEXTS)
    for row, prediction in zip(rows, classifier.classify(TEXTS), strict=True):
        assert row["label"] == prediction.label
        assert row["score"] == pytest.approx(prediction.score, abs=1e-6)
        assert row["layers_run"] == list(prediction.layers_run)


@pytest.mark.parametrize(
    ("suffix", "content"), [("txt", as_txt()), ("csv", as_csv()), ("tsv", as_tsv()), ("jsonl", as_jsonl())]
)
@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "byte-order-mark"])
def test_file_formats(
    call: Call, package_dir: Path, classifier: SmartBert, tmp_path: Path, suffix: str, content: str, start: str
) -> None:
    file = tmp_path / f"texts.{suffix}"
    file.write_bytes((start + content).encode())
    run = call(main, package_dir, "--file", file, "--format", "json")
    assert run.code == 0 and run.err == ""
    assert_predictions(run.out, classifier)


@pytest.mark.parametrize("content", [as_txt(), as_jsonl()], ids=["txt", "jsonl"])
def test_standard_input(call: Call, package_dir: Path, classifier: SmartBert, content: str) -> None:
    run = call(main, package_dir, "--file", "-", "--format", "json", stdin=content.encode())
    assert run.code == 0 and run.err == ""
    assert_predictions(run.out, classifier)


def test_text_column(call: Call, package_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,other\nnot this,Off with her head!\n", encoding="utf-8")
    run = call(main, package_dir, "--file", file, "--text-column", "other", "--format", "json")
    assert [row["text"] for row in rows_of(run.out)] == ["Off with her head!"]


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("sentence1\tsentence2\tlabel", []),
        ("question\tsentence\tlabel", []),
        ("a\tb\tlabel", ["--text-column", "a", "--pair-column", "b"]),
    ],
)
def test_pair_columns(
    call: Call, package_dir: Path, classifier: SmartBert, tmp_path: Path, header: str, options: list[str]
) -> None:
    file = tmp_path / "pairs.tsv"
    file.write_text(f"{header}\nDo cats eat bats?\tDo bats eat cats?\todd\n", encoding="utf-8")
    run = call(main, package_dir, "--file", file, "--format", "json", *options)
    (row,) = rows_of(run.out)
    (prediction,) = classifier.classify(["Do cats eat bats?"], text_pairs=["Do bats eat cats?"])
    assert (row["text"], row["text_pair"]) == ("Do cats eat bats?", "Do bats eat cats?")
    assert row["score"] == pytest.approx(prediction.score, abs=1e-6)


def test_truncated_texts_are_counted(call: Call, package_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("\n".join(SENTENCES * 2), encoding="utf-8")
    run = call(main, package_dir, "--file", tmp_path / "t.txt", "--batch-size", "1")
    assert run.err == "note: 4 of 48 texts were longer than the model and were cut\n"


@pytest.mark.parametrize("batch_size", ["1", "7", "500"])
def test_answers_keep_the_order(call: Call, package_dir: Path, tmp_path: Path, batch_size: str) -> None:
    texts = [f"{SENTENCES[number % 24]} {number}" for number in range(130)]
    file = tmp_path / "many.txt"
    file.write_text("\n".join(texts), encoding="utf-8")
    run = call(main, package_dir, "--file", file, "--format", "json", "--batch-size", batch_size)
    rows = rows_of(run.out)
    assert [row["index"] for row in rows] == list(range(130))
    assert [row["text"] for row in rows] == texts
