"""smartbert-infer's bad inputs: `error:` and `hint:` on stderr, exit code 1, no data, no traceback."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from smartbert_runtime.cli.infer import main
from tests.cli.conftest import Call
from tests.helpers import assert_named_error

LONG = "Would the fall never come to an end, and would the poor little Alice never come to the end of it at all?"

FILES = {
    "broken JSON": ("t.jsonl", b'{"text": "fine"}\n{"text": \n', ["t.jsonl, line 2: not JSON"]),
    "JSON that is no object": ("t.jsonl", b'{"text": "fine"}\n\n["a list"]\n', ["t.jsonl, line 3: not a JSON object"]),
    "not UTF-8": ("t.txt", b"fine\nfine\nGr\xf6\xdfe\n", ["t.txt, line 3: not UTF-8"]),
    "an empty line": ("t.txt", b"fine\n\nfine\n", ["t.txt, line 2: text is empty"]),
    "an empty field": ("t.tsv", b"text\tlabel\nfine\todd\n  \todd\n", ["t.tsv, line 3: text is empty"]),
    "an empty file": ("t.txt", b"", ["t.txt holds no rows"]),
    "only a header": ("t.csv", b"text,label\n", ["t.csv holds no rows"]),
    "no known column": ("t.csv", b"body,label\nfine,odd\n", ["which column holds the text?", "body, label"]),
    "too many fields": ("t.tsv", b"text\tlabel\na\tb\tc\n", ["t.tsv, line 2: 3 fields where the header has 2"]),
    "an open quote": ("t.csv", b'text,label\n"fine,odd\n', ["t.csv, line 2"]),
    "a column twice": ("t.csv", b"text,text\na,b\n", ["the column 'text' occurs twice"]),
    "an unknown ending": ("t.docx", b"fine\n", ["unknown kind of file", ".txt, .csv, .tsv, .jsonl"]),
}


@pytest.mark.parametrize("case", FILES)
def test_unreadable_file(call: Call, package_dir: Path, tmp_path: Path, case: str) -> None:
    name, content, words = FILES[case]
    (tmp_path / name).write_bytes(content)
    assert_named_error(call(main, package_dir, "--file", tmp_path / name), *words)


def test_missing_file(call: Call, package_dir: Path, tmp_path: Path) -> None:
    assert_named_error(call(main, package_dir, "--file", tmp_path / "no.txt"), "no.txt cannot be read: No such file")


def test_unknown_column(call: Call, package_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\nfine,odd\n", encoding="utf-8")
    for option in ("--text-column", "--pair-column"):
        run = call(main, package_dir, "--file", tmp_path / "t.csv", option, "body")
        assert_named_error(run, "has no column 'body'", "its columns: text, label")


@pytest.mark.parametrize(("stdin", "word"), [(b"", "holds no rows"), (b'{"text": "a"}\n{"text"\n', "line 2: not JSON")])
def test_bad_standard_input(call: Call, package_dir: Path, stdin: bytes, word: str) -> None:
    assert_named_error(call(main, package_dir, "--file", "-", stdin=stdin), "standard input", word)


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_empty_text(call: Call, package_dir: Path, text: str) -> None:
    assert_named_error(call(main, package_dir, "--text", "Off with her head!", "--text", text), "text 2 is empty")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], ["give texts with --text, or with --file"]),
        (["--text", "a", "--file", "t.txt"], ["give texts with --text, or with --file"]),
        (["--text", "a", "--text", "b", "--text-pair", "c"], ["2 texts but 1 second texts"]),
        (["--text", "a", "--text-pair", " "], ["second text 1 is empty"]),
        (["--file", "t.txt", "--text-pair", "c"], ["--text-pair"]),
    ],
    ids=["nothing", "both", "missing-pair", "empty-pair", "pair-for-a-file"],
)
def test_conflicting_text_options(
    call: Call, package_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text("fine\n", encoding="utf-8")
    assert_named_error(call(main, package_dir, *options), *words)


def test_no_truncate_refuses_long_text(call: Call, package_dir: Path) -> None:
    run = call(main, package_dir, "--text", LONG, "--no-truncate")
    assert_named_error(run, "longer than the model's 24 tokens", LONG[:60], "--no-truncate")


@pytest.mark.parametrize(
    ("last", "options", "words"),
    [
        ("  ", [], "t.txt, line 301: text is empty"),
        (LONG, ["--no-truncate"], "t.txt, line 301: a text is longer than the model's 24 tokens"),
    ],
    ids=["empty", "too long"],
)
def test_late_bad_line_precedes_all_answers(
    call: Call, package_dir: Path, tmp_path: Path, last: str, options: list[str], words: str
) -> None:
    (tmp_path / "t.txt").write_text("fine\n" * 300 + last, encoding="utf-8")
    for format in ("json", "csv"):
        assert_named_error(call(main, package_dir, "--file", tmp_path / "t.txt", "--format", format, *options), words)


def test_missing_package(call: Call, tmp_path: Path) -> None:
    assert_named_error(call(main, tmp_path / "nowhere", "--text", "a"), "nowhere is not a folder", "smartbert-export")


def test_package_is_a_file(call: Call, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("not a folder", encoding="utf-8")
    assert_named_error(call(main, tmp_path / "out", "--text", "a"), "out is not a folder")


def test_package_is_a_checkpoint(call: Call, checkpoint_dir: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoint_dir, tmp_path / "ckpt")
    assert_named_error(call(main, folder, "--text", "a"), "ckpt holds no readable manifest.json", "smartbert-export")
