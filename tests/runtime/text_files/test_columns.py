"""columns, formats, examples: real-world txt, csv, tsv and jsonl files, and the line number in every error."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.columns import Columns, choose_columns
from smartbert_runtime.text_files.examples import Examples, read_examples

BOM = b"\xef\xbb\xbf"


def read(
    folder: Path, name: str, content: str | bytes, columns: Columns | None = None, *, labeled: bool = False
) -> Examples:
    """Write the file and read it."""
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_examples(file, columns, labeled=labeled)


def refusal(
    folder: Path, name: str, content: str | bytes, columns: Columns | None = None, *, labeled: bool = False
) -> tuple[str, str]:
    """The error message after the file's name, and the hint."""
    with pytest.raises(InputError) as caught:
        read(folder, name, content, columns, labeled=labeled)
    message = str(caught.value)
    assert message.startswith(str(folder / name))
    return message.removeprefix(str(folder / name)), caught.value.hint


# What is read


@pytest.mark.parametrize("head", [b"", BOM])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "down, down\n“oh”\n"),
        ("a.csv", 'text,label\n"down, down",x\n“oh”,y\n'),
        ("a.tsv", "text\tlabel\ndown, down\tx\n“oh”\ty\n"),
        ("a.jsonl", '{"text": "down, down", "label": "x"}\n{"text": "“oh”", "label": "y"}\n'),
    ],
)
def test_formats_bom_and_crlf(tmp_path: Path, name: str, content: str, end: str, head: bytes) -> None:
    examples = read(tmp_path, name, head + content.replace("\n", end).encode(), labeled=not name.endswith("txt"))
    assert examples.texts == ("down, down", "“oh”")
    assert examples.labels == (None if name.endswith("txt") else ("x", "y"))
    assert examples.lines == ((2, 3) if name.endswith(("csv", "tsv")) else (1, 2))
    assert (examples.pairs, len(examples), examples.source) == (None, 2, str(tmp_path / name))


def test_no_final_newline_and_capital_name(tmp_path: Path) -> None:
    assert read(tmp_path, "A.TXT", "one\ntwo").texts == ("one", "two")


def test_csv_quoting(tmp_path: Path) -> None:
    examples = read(tmp_path, "a.csv", 'text,label\n"a ""b"", c\nd",x\ne,y\n')
    assert examples.texts == ('a "b", c\nd', "e")
    assert examples.lines[-1] == 4


def test_tsv_without_quoting(tmp_path: Path) -> None:
    assert read(tmp_path, "a.tsv", 'sentence\tlabel\nsay "hi\t1\n"so"\t0\n').texts == ('say "hi', '"so"')


def test_unicode_line_breaks(tmp_path: Path) -> None:
    assert read(tmp_path, "a.txt", "a\u2028b\nc\x0bd\n").texts == ("a\u2028b", "c\x0bd")
    assert read(tmp_path, "a.jsonl", '{"text": "a\u2028b"}\n').texts == ("a\u2028b",)


def test_jsonl_numbers_and_booleans(tmp_path: Path) -> None:
    content = '{"text": 12, "label": 1}\n\n{"text": "b", "label": true, "more": [1]}\n'
    examples = read(tmp_path, "a.jsonl", content, labeled=True)
    assert (examples.texts, examples.labels, examples.lines) == (("12", "b"), ("1", "true"), (1, 3))


@pytest.mark.parametrize("content", ['\n {"text": "a"}\n{"text": "b"}\n', "a\nb\n"])
def test_standard_input_format(monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    examples = read_examples("-")
    assert (examples.texts, examples.source) == (("a", "b"), "standard input")


def test_standard_input_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a"}\n{"text"\n')))
    with pytest.raises(InputError, match=r"^standard input, line 2: not JSON"):
        read_examples("-")


# Which columns


@pytest.mark.parametrize(
    ("available", "columns", "chosen"),
    [
        (["idx", "sentence", "label"], Columns(), ("sentence", None)),
        (["sentence1", "sentence2", "label"], Columns(), ("sentence1", "sentence2")),
        (["question", "sentence"], Columns(), ("question", "sentence")),
        (["question1", "question2"], Columns(), ("question1", "question2")),
        (["premise", "hypothesis"], Columns(), ("premise", "hypothesis")),
        (["text_pair", "text"], Columns(), ("text", "text_pair")),
        (["text", "sentence"], Columns(text="text"), ("text", None)),
        (["body", "title"], Columns(text="body", pair="title"), ("body", "title")),
        (["text", "title"], Columns(pair="title"), ("text", "title")),
    ],
)
def test_choose_columns(available: list[str], columns: Columns, chosen: tuple[str, str | None]) -> None:
    assert choose_columns(available, columns, "a.csv") == chosen


def test_pairs(tmp_path: Path) -> None:
    examples = read(tmp_path, "a.tsv", "question1\tquestion2\na\tb\nc\td\n")
    assert (examples.texts, examples.pairs) == (("a", "c"), ("b", "d"))


def test_missing_column(tmp_path: Path) -> None:
    content = "text,mood\na,b\n"
    columns = Columns(text="body")
    assert refusal(tmp_path, "a.csv", content, columns) == (" has no column 'body'", "its columns: text, mood")
    columns = Columns(text="text", pair="other")
    assert refusal(tmp_path, "a.csv", content, columns) == (" has no column 'other'", "its columns: text, mood")
    message, hint = refusal(tmp_path, "a.csv", content, labeled=True)
    assert message == " has no column 'label' for the labels"
    assert "text, mood" in hint
    assert "--label-column" in hint


def test_unknown_columns(tmp_path: Path) -> None:
    message, hint = refusal(tmp_path, "a.csv", "body,mood\na,b\n")
    assert message == ": which column holds the text?"
    assert "body, mood" in hint


def test_pair_only_in_later_lines(tmp_path: Path) -> None:
    assert refusal(tmp_path, "a.jsonl", '{"text": "a"}\n{"text": "b", "text_pair": "c"}\n')[0].startswith(", line ")


def test_text_missing_in_first_line(tmp_path: Path) -> None:
    message, _ = refusal(tmp_path, "a.jsonl", '{"text": null, "label": "x"}\n{"text": "b", "label": "y"}\n')
    assert message == ", line 1: text is empty"


# What is refused, and where


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "a\n\nb\n", ", line 2: text is empty"),
        ("a.csv", "text,label\na,x\n  ,y\n", ", line 3: text is empty"),
        ("a.csv", 'text,label\n"a\nb",x\n"",y\n', ", line 4: text is empty"),
        ("a.tsv", "sentence1\tsentence2\na\tb\nc\t\n", ", line 3: sentence2 is empty"),
        ("a.jsonl", '{"text": "a"}\n{"text": null}\n', ", line 2: text is empty"),
        ("a.jsonl", '{"text": "a"}\n{"label": "x"}\n', ", line 2: text is empty"),
        ("a.jsonl", '{"text": "a"}\n["b"]\n', ", line 2: not a JSON object"),
        ("a.csv", "text,label\na,x\nb\n", ", line 3: 1 fields where the header has 2"),
        ("a.csv", "text,label\na,b,x\n", ", line 2: 3 fields where the header has 2"),
        ("a.tsv", "text\tlabel\na\tb\tx\n", ", line 2: 3 fields where the header has 2"),
        ("a.csv", 'text,label\na,x\n"b"c,y\n', ", line 3: ',' expected after '\"'"),
        ("a.csv", 'text,label\n"a,x\n', ", line 2: unexpected end of data"),
        ("a.csv", "text,text\na,b\n", ": the column 'text' occurs twice"),
        ("a.txt", "", " holds no rows"),
        ("a.csv", "text,label\n", " holds no rows"),
        ("a.jsonl", "\n\n", " holds no rows"),
    ],
)
def test_refusals_name_the_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    assert refusal(tmp_path, name, content)[0] == message


def test_invalid_json(tmp_path: Path) -> None:
    message, hint = refusal(tmp_path, "a.jsonl", '{"text": "a"}\n{"text": \n')
    assert message.startswith(", line 2: not JSON (")
    assert hint == "one JSON object a line, not one list over several"


def test_empty_label(tmp_path: Path) -> None:
    content = "text,label\na,x\nb,\n"
    assert read(tmp_path, "a.csv", content).labels is None
    assert refusal(tmp_path, "a.csv", content, labeled=True)[0] == ", line 3: label is empty"


@pytest.mark.parametrize("head", [b"", BOM])
@pytest.mark.parametrize(("content", "line"), [(b"\xffab\n", 1), (b"ab\n\xff\n", 2), (b"a\n\nbcdef\xc3\n", 3)])
def test_invalid_utf8(tmp_path: Path, head: bytes, content: bytes, line: int) -> None:
    message, hint = refusal(tmp_path, "a.txt", head + content)
    assert (message, hint) == (f", line {line}: not UTF-8 text", "convert the file to UTF-8")


def test_unusable_paths(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.txt cannot be read: No such file"):
        read_examples(tmp_path / "gone.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_examples(tmp_path / "folder.txt")
    known = "known endings: .txt, .csv, .tsv, .jsonl, .json, .parquet, and .gz after them"
    assert refusal(tmp_path, "a.xlsx", "a") == (": unknown kind of file", known)
