"""input_texts: the texts that read_examples reads, one at a time; bad records as errors; windows of a pipe."""

from __future__ import annotations

import io
import itertools
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import read_examples
from smartbert_runtime.text_files.formats import raise_first_error
from smartbert_runtime.text_files.input_texts import InputText, check_each, read_texts, windows
from smartbert_runtime.text_files.lines import Lines
from smartbert_runtime.text_files.records import LineRecords, open_records


def items_of(content: str | bytes, format: str, columns: Columns | None = None) -> list[InputText | InputError]:
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return list(read_texts(LineRecords(Lines(stream, "here"), format), columns or Columns()))


def described(items: list[InputText | InputError]) -> list[object]:
    """The texts' index, line and text, and the errors' messages after the file's name."""
    return [
        (item.index, item.line, item.text) if isinstance(item, InputText) else str(item).removeprefix("here, ")
        for item in items
    ]


# Like read_examples


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "one, two\n“oh”\r\nlast"),
        ("a.csv", 'label,text\nx,"one ""1"",\n2"\r\n\ny,“oh”\nz,"a\rb"\n'),
        ("a.csv", "text,label\ra,x\rb,y\r"),
        ("a.tsv", 'question1\tquestion2\tlabel\n"a\tb\tx\nc"\td\ty\n'),
        ("a.jsonl", '{"text": 12, "label": 1}\n\n{"more": [1], "text": "b\u2028"}\n'),
        ("a.jsonl", '{"premise": "a", "hypothesis": "b"}\n{"hypothesis": "c", "premise": "d"}\n'),
    ],
)
def test_texts_match_read_examples(tmp_path: Path, name: str, content: str, start: bytes) -> None:
    (tmp_path / name).write_bytes(start + content.encode())
    examples = read_examples(tmp_path / name)
    with open_records(tmp_path / name) as source:
        records = list(raise_first_error(read_texts(source, Columns())))
    assert tuple(record.text for record in records) == examples.texts
    assert tuple(record.line for record in records) == examples.lines
    assert [record.index for record in records] == list(range(len(examples)))
    assert tuple(record.pair for record in records) == (examples.pairs or (None,) * len(examples))


def test_named_columns() -> None:
    (record,) = items_of("text,body,title\na,b,c\n", "csv", Columns(text="body", pair="title"))
    assert record == InputText(index=0, line=2, text="b", pair="c")


@pytest.mark.parametrize(
    ("format", "content", "columns", "message"),
    [
        ("csv", "body,mood\na,b\n", Columns(), "here: which column holds the text?"),
        ("csv", "text,mood\na,b\n", Columns(text="body"), "here has no column 'body'"),
        ("tsv", "text\tmood\na\tb\n", Columns(text="text", pair="text"), "'text' cannot be both the text and its pair"),
        ("csv", "text,text\na,b\n", Columns(), "here: the column 'text' occurs twice"),
        ("csv", b"text,Gr\xf6\na,b\n", Columns(), "here, line 1: not UTF-8 text"),
        ("csv", '"text"x,label\na,b\n', Columns(), "here, line 1: ',' expected after '\"'"),
        ("csv", "text,label\n", Columns(), "here holds no rows"),
        ("jsonl", "\n\n", Columns(), "here holds no rows"),
        ("txt", "", Columns(), "here holds no rows"),
    ],
)
def test_whole_file_errors_are_raised(format: str, content: str | bytes, columns: Columns, message: str) -> None:
    with pytest.raises(InputError) as caught:
        items_of(content, format, columns)
    assert str(caught.value) == message


# Bad records between good ones


@pytest.mark.parametrize(
    ("format", "content", "expected"),
    [
        ("txt", b"a\n \nb\xff\n\nc", [(0, 1, "a"), "line 2: text is empty", "line 3: not UTF-8 text",
                                      "line 4: text is empty", (4, 5, "c")]),
        ("csv", b'text,label\na,x\nb\n\n"c"d,x\ne,x\n', [
            (0, 2, "a"), "line 3: 1 fields where the header has 2", "line 5: ',' expected after '\"'", (3, 6, "e")]),
        ("csv", b'text,label\n"a\nb\xff\nc",x\nd,x\n', ["line 3: not UTF-8 text", (1, 5, "d")]),
        ("csv", b'text,label\na,x\n"b,x\nc,x\n', [(0, 2, "a"), "lines 3 to 4: unexpected end of data"]),
        ("tsv", b"text\tlabel\na\tb\tx\nc\tx\n", ["line 2: 3 fields where the header has 2", (1, 3, "c")]),
        ("jsonl", b'{"text": "a"}\n["b"]\n{"text": null}\n{"text": "\\ud800"}\n\xff\n{"text": "f"}\n', [
            (0, 1, "a"), "line 2: not a JSON object", "line 3: text is empty", "line 4: text is not Unicode text",
            "line 5: not UTF-8 text", (5, 6, "f")]),
        ("jsonl", b'{"id": 1}\n{}\n{"text": "a"}\n{"sentence": "b"}\n', [
            "line 1: which column holds the text?", "line 2 names no column", (2, 3, "a"), "line 4: text is empty"]),
    ],
)  # fmt: skip
def test_bad_records_among_good_ones(format: str, content: bytes, expected: list[object]) -> None:
    assert described(items_of(content, format)) == expected


def test_broken_json() -> None:
    first, second, third = items_of('{"text"\n' + "[" * 200_000 + '\n{"text": "a"}\n', "jsonl")
    assert str(first).startswith("here, line 1: not JSON (")
    assert str(second).startswith("here, line 2: not JSON (")
    assert isinstance(third, InputText)


def test_open_quote_is_bounded() -> None:
    rows = [f"text number {number},x" for number in range(400_000)]
    items = items_of('text,label\n"' + "\n".join(rows) + "\n", "csv")
    assert str(items[0]).endswith("field larger than field limit (4194304)")
    assert len(items) > 100_000 and all(isinstance(item, InputText) for item in items[1:])


def test_first_object_sets_columns() -> None:
    items = items_of('{"text": "a"}\n{"text": "b", "text_pair": "c"}\n', "jsonl")
    assert [item.pair for item in items if isinstance(item, InputText)] == [None, None]
    items = items_of('{"text": "a", "text_pair": "b"}\n{"text": "c"}\n', "jsonl")
    assert str(items[1]) == "here, line 2: text_pair is empty"


def test_check_each() -> None:
    def accept(record: InputText) -> None:
        if len(record.text) > 3:
            raise InputError("too long", hint="cut it")

    source = LineRecords(Lines(io.BytesIO(), "here"), "txt")
    items = list(check_each(items_of("abc\n\nabcd\nef\n", "txt"), accept, source))
    assert described(items) == [(0, 1, "abc"), "line 2: text is empty", "line 3: too long", (3, 4, "ef")]
    assert isinstance(items[2], InputError) and items[2].hint == "cut it"


# Memory


@pytest.mark.parametrize("format", ["txt", "csv", "tsv", "jsonl"])
def test_memory_is_bounded(tmp_path: Path, format: str) -> None:
    texts = [f"text number {number}, which is not held" for number in range(20_000)]
    lines_of = {
        "txt": texts,
        "csv": ["text,label", *(f'"{text}",x' for text in texts)],
        "tsv": ["text\tlabel", *(f"{text}\tx" for text in texts)],
        "jsonl": [json.dumps({"text": text}) for text in texts],
    }
    file = tmp_path / f"many.{format}"
    file.write_text("\n".join(lines_of[format]), encoding="utf-8")
    del texts, lines_of
    count = 0
    with open_records(file) as records:
        tracemalloc.start()
        try:
            for window in windows(read_texts(records, Columns()), 64, records.ready):
                count += len(window)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert count == 20_000
    # One chunk is some 2,000 lines, each an object of its own: 400 kB. All lines would be 4 MB and more.
    assert peak < 800_000


# Windows


def test_windows_are_full() -> None:
    assert list(windows(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(windows([], 3)) == []


def test_window_ends_where_input_blocks() -> None:
    ready = iter([True, False, False, True, True])
    assert list(windows(range(6), 3, lambda: next(ready))) == [[0, 1], [2], [3, 4, 5]]


def test_error_follows_its_window() -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise InputError("bad")

    found = windows(items(), 3)
    assert list(itertools.islice(found, 2)) == [[0, 1, 2], [3, 4]]
    with pytest.raises(InputError, match="bad"):
        next(found)


def test_window_of_a_pipe() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as writer:
        records = LineRecords(Lines(stream, "pipe"), "jsonl")
        found = windows(read_texts(records, Columns()), 3, records.ready)
        writer.write(b'{"text": "a"}\n{"text": "b"}\n\n{"tex')  # were anything waited for, this test would not end
        assert [described([item])[0] for item in next(found)] == [(0, 1, "a"), (1, 2, "b")]
        writer.write(b't": "c"}\n\n' + b'{"text": "d"}\n' * 4)
        assert [len(next(found)) for _ in range(2)] == [3, 2]
        writer.close()
        assert list(found) == []
