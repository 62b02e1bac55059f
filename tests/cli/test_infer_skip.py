"""smartbert-infer --skip-bad-lines: bad lines are noted on stderr and skipped, the others are answered."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from smartbert_runtime.cli.infer import main
from tests.cli.conftest import Call
from tests.conftest import SENTENCES
from tests.helpers import assert_named_error

LONG = "Would the fall never come to an end, and would the poor little Alice never come to the end of it at all?"

# Name, content, the answers' (index, text), and the notes after "note: FILE, ".
CASES = {
    "txt": (
        "t.txt",
        b"one\n  \ntwo\nGr\xf6\xdfe\nthree\n",
        [(0, "one"), (2, "two"), (4, "three")],
        ["line 2: text is empty: skipped", "line 4: not UTF-8 text: skipped"],
    ),
    "csv": (
        "t.csv",
        b'text,label\none,x\ntwo\n"two\n\xff",x\n"three\nfour",x\n"five"six,x\nseven,x\n',
        [(0, "one"), (3, "three\nfour"), (5, "seven")],
        [
            "line 3: 1 fields where the header has 2: skipped",
            "line 5: not UTF-8 text: skipped",
            "line 8: ',' expected after '\"': skipped",
        ],
    ),
    "tsv": (
        "t.tsv",
        b"sentence1\tsentence2\na\tb\na\tb\tc\nc\t \nd\te\n",
        [(0, "a"), (3, "d")],
        ["line 3: 3 fields where the header has 2: skipped", "line 4: sentence2 is empty: skipped"],
    ),
    "jsonl": (
        "t.jsonl",
        b'["one"]\n\n{"text": "two"}\n{"text": "\\udfff"}\n{"label": "x"}\n{"text": "three"}\n',
        [(1, "two"), (4, "three")],
        [
            "line 1: not a JSON object: skipped",
            "line 4: text is not Unicode text: skipped",
            "line 5: text is empty: skipped",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_good_lines_keep_their_index(call: Call, package_dir: Path, tmp_path: Path, case: str) -> None:
    name, content, expected, reasons = CASES[case]
    file = tmp_path / name
    file.write_bytes(content)
    run = call(main, package_dir, "--file", file, "--skip-bad-lines", "--format", "json")
    assert run.code == 0
    rows = [json.loads(line) for line in run.out.splitlines()]
    assert [(row["index"], row["text"]) for row in rows] == expected
    *notes, end = run.err.splitlines()
    assert notes == [f"note: {file}, {reason}" for reason in reasons]
    assert end == f"note: {len(reasons)} of {len(expected) + len(reasons)} lines were skipped"


def test_bad_line_without_the_option(call: Call, package_dir: Path, tmp_path: Path) -> None:
    for name, content, _, reasons in CASES.values():
        (tmp_path / name).write_bytes(content)
        run = call(main, package_dir, "--file", tmp_path / name, "--format", "csv")
        assert_named_error(run, f"{name}, {reasons[0].removesuffix(': skipped')}")


def test_index_in_csv(call: Call, package_dir: Path) -> None:
    options = ["--file", "-", "--skip-bad-lines", "--format", "csv"]
    run = call(main, package_dir, *options, stdin=b"one\n\ntwo\n")
    assert [row["index"] for row in csv.DictReader(io.StringIO(run.out, newline=""))] == ["0", "2"]
    assert run.err.splitlines()[0] == "note: standard input, line 2: text is empty: skipped"


def test_bad_lines_far_apart(call: Call, package_dir: Path, tmp_path: Path) -> None:
    lines = ["" if number % 7 == 3 else f"{SENTENCES[number % 24]} {number}" for number in range(100)]
    (tmp_path / "t.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    options = ["--skip-bad-lines", "--batch-size", "1", "--format", "json"]
    run = call(main, package_dir, "--file", tmp_path / "t.txt", *options)
    rows = [json.loads(line) for line in run.out.splitlines()]
    assert [(row["index"], row["text"]) for row in rows] == [(n, line) for n, line in enumerate(lines) if line]
    assert "note: 14 of 100 lines were skipped" in run.err.splitlines()


def test_long_text_with_no_truncate(call: Call, package_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "t.txt"
    file.write_text(f"one\n{LONG}\ntwo\n", encoding="utf-8")
    run = call(main, package_dir, "--file", file, "--no-truncate", "--skip-bad-lines", "--format", "json")
    assert run.code == 0 and [json.loads(line)["index"] for line in run.out.splitlines()] == [0, 2]
    note = run.err.splitlines()[0]
    assert note.startswith(f"note: {file}, line 2: a text is longer than the model's 24 tokens: 'Would the fall")
    assert note.endswith(": skipped")


def test_nothing_to_skip(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--file", "-", "--skip-bad-lines", stdin=b"one\ntwo\n")
    assert (run.code, run.err, len(run.out.splitlines())) == (0, "", 2)


def test_every_line_is_bad(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--file", "-", "--skip-bad-lines", stdin=b'{"text": \n{"text": ""}\n')
    assert_named_error(run, "error: standard input, line 1: not JSON", "hint: one JSON object a line")
    assert run.err.count(": skipped") == 2


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.txt", b"", "holds no rows"),
        ("t.csv", b"body,label\na,b\n", "which column holds the text?"),
        ("t.csv", b"text,text\na,b\n", "the column 'text' occurs twice"),
    ],
)
def test_whole_file_is_bad(
    call: Call, package_dir: Path, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(content)
    run = call(main, package_dir, "--file", tmp_path / name, "--skip-bad-lines")
    assert_named_error(run, words)
    assert "skipped" not in run.err


def test_option_needs_file(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--text", "one", "--skip-bad-lines")
    assert_named_error(run, "error: --skip-bad-lines goes with --file", "hint: leave it out")
