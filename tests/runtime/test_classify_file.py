"""classify_file: files checked first, pipes answered as they arrive, bad lines refused or skipped, notes reported."""

from __future__ import annotations

import io
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from smartbert_runtime import Policy, SmartBert
from smartbert_runtime.errors import ConfigError, InputError
from smartbert_runtime.reporting import Reporter
from smartbert_runtime.text_files.columns import Columns
from tests.conftest import SENTENCES

LONG = "Would the fall never come to an end? " * 10


class Notes(Reporter):
    """Keeps the notes; a file has no steps."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.notes.append(text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """All sentences, one a line."""
    (tmp_path / "t.txt").write_text("\n".join(SENTENCES), encoding="utf-8")
    return tmp_path / "t.txt"


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_file_matches_classify(classifier: SmartBert, file: Path, batch_size: int) -> None:
    policy = Policy(exit_threshold=0.7)
    with classifier.classify_file(file, policy=policy, batch_size=batch_size) as predictions:
        assert predictions.total == len(SENTENCES)
        indices, found = zip(*predictions, strict=True)
    assert indices == tuple(range(len(SENTENCES)))
    for prediction, expected in zip(found, classifier.classify(SENTENCES, policy=policy), strict=True):
        assert prediction.text == expected.text and prediction.label == expected.label
        assert prediction.trace.decisions() == expected.trace.decisions()


def test_columns_and_pairs(classifier: SmartBert, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\nDo cats eat bats?,Do bats eat cats?\n", encoding="utf-8")
    with classifier.classify_file(tmp_path / "t.csv", columns=Columns(text="a", pair="b")) as predictions:
        ((index, prediction),) = predictions
    (expected,) = classifier.classify(["Do cats eat bats?"], text_pairs=["Do bats eat cats?"])
    assert (index, prediction.text_pair) == (0, "Do bats eat cats?")
    assert prediction.trace.decisions() == expected.trace.decisions()


def test_bad_line_precedes_all_predictions(classifier: SmartBert, file: Path) -> None:
    file.write_text("one\n" * 600 + "\n", encoding="utf-8")
    with (
        pytest.raises(InputError, match=r"t\.txt, line 601: text is empty"),
        classifier.classify_file(file, batch_size=1),
    ):
        pytest.fail("a bad line must be raised before there are predictions")


def test_long_text_is_a_bad_line(classifier: SmartBert, file: Path) -> None:
    file.write_text(f"one\n{LONG}\n", encoding="utf-8")
    with classifier.classify_file(file) as predictions:
        assert [prediction.truncated for _, prediction in predictions] == [False, True]
    with (
        pytest.raises(InputError, match=r"line 2: a text is longer than the model's 24 tokens"),
        classifier.classify_file(file, truncate=False),
    ):
        pytest.fail("a text that is too long must be raised before there are predictions")


def test_skip_bad_lines(classifier: SmartBert, file: Path) -> None:
    file.write_bytes(b"one\n\ntwo\n\xff\n" + LONG.encode() + b"\nthree")
    notes = Notes()
    options = classifier.classify_file(file, skip_bad_lines=True, truncate=False, batch_size=1, reporter=notes)
    with options as predictions:
        assert predictions.total is None
        assert [(index, prediction.text) for index, prediction in predictions] == [(0, "one"), (2, "two"), (5, "three")]
    assert notes.notes[:2] == [f"{file}, line 2: text is empty: skipped", f"{file}, line 4: not UTF-8 text: skipped"]
    assert notes.notes[2].startswith(f"{file}, line 5: a text is longer than") and len(notes.notes) == 4
    assert notes.notes[3] == "3 of 6 lines were skipped"


def test_skip_every_line(classifier: SmartBert, file: Path) -> None:
    file.write_text("\n \n", encoding="utf-8")
    notes = Notes()
    with (
        classifier.classify_file(file, skip_bad_lines=True, reporter=notes) as predictions,
        pytest.raises(InputError, match="line 1: text is empty"),
    ):
        list(predictions)
    assert len(notes.notes) == 2


def test_nothing_is_printed(classifier: SmartBert, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.write_text("one\n\n", encoding="utf-8")
    with classifier.classify_file(file, skip_bad_lines=True) as predictions:
        assert len(list(predictions)) == 1
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.FileIO]:
    """The writing end of a pipe whose other end is standard input."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as writer:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
        assert isinstance(writer, io.FileIO)
        yield writer


def test_pipe_is_answered_as_it_arrives(classifier: SmartBert, pipe: io.FileIO) -> None:
    pipe.write(b"one\ntwo\n")
    with classifier.classify_file("-") as predictions:
        assert predictions.total is None
        # Were more than these lines waited for, this test would not end.
        assert [prediction.text for _, prediction in itertools.islice(predictions, 2)] == ["one", "two"]
        pipe.write(b"three\n \n")
        pipe.close()
        assert next(iter(predictions))[1].text == "three"
        with pytest.raises(InputError, match="standard input, line 4: text is empty"):
            next(iter(predictions))


def test_bad_arguments_precede_reading(classifier: SmartBert, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size"):
        classifier.classify_file(tmp_path / "missing.txt", batch_size=0)
    with pytest.raises(InputError, match="cannot be read"), classifier.classify_file(tmp_path / "missing.txt"):
        pytest.fail("a missing file must be raised")
