"""lines: bounded read-ahead, bad lines between good ones, and which lines of a pipe have arrived."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.lines import CHUNK_BYTES, MAX_BLANK_LINES, Lines

BOM = b"\xef\xbb\xbf"


def in_memory(content: bytes) -> Lines:
    return Lines(io.BytesIO(content), "here")


class Drops(io.BytesIO):
    """A stream of which each reading brings a few bytes, as a slow pipe's may."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(2)


@pytest.fixture
def pipe() -> Iterator[tuple[Lines, io.FileIO]]:
    """The lines of a real pipe, and the end that is written into."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as writer:
        assert isinstance(writer, io.FileIO)
        yield Lines(stream, "pipe"), writer


@pytest.mark.parametrize("stream", [io.BytesIO, Drops])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (BOM, []),
        (BOM + b"a\nb", ["a\n", "b"]),
        (b"a\r\n\nb\n", ["a\r\n", "\n", "b\n"]),
        ("ö\u2028\x0b猫\rx\n".encode(), ["ö\u2028\x0b猫\rx\n"]),
        (b"a\n" + BOM + b"b\n", ["a\n", "\ufeffb\n"]),
    ],
)
def test_line_ends_and_bom(stream: type[io.BytesIO], content: bytes, expected: list[str]) -> None:
    assert list(Lines(stream(content), "here")) == expected


def test_line_longer_than_chunk(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ö" * CHUNK_BYTES + "\nb\n", encoding="utf-8")
    with Lines.open(tmp_path / "a.txt") as lines:
        assert list(lines) == ["ö" * CHUNK_BYTES + "\n", "b\n"]


def test_endless_stream() -> None:
    class Endless(io.BytesIO):
        given = 0

        def read1(self, size: int | None = -1, /) -> bytes:
            assert size is not None
            self.given += size
            return b"x\n" * (size // 2)

    stream = Endless()
    lines = Lines(stream, "here")
    for count in range(1, 100_001):
        assert next(lines) == "x\n"
        assert stream.given - 2 * count <= CHUNK_BYTES
    assert lines.number == 100_000


def test_invalid_utf8_line() -> None:
    lines = in_memory(b"a\nGr\xf6\xdfe\nb\n\xff\n\xfe\n")
    assert next(lines) == "a\n" and lines.take_error() is None
    assert next(lines).startswith("Gr")
    damage = lines.take_error()
    assert damage is not None and str(damage) == "here, line 2: not UTF-8 text"
    assert next(lines) == "b\n" and lines.take_error() is None
    list(lines)
    assert str(lines.take_error()) == "here, line 4: not UTF-8 text"  # the first of two


def test_rewind(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(BOM + b"a\n\xff\n")
    with Lines.open(tmp_path / "a.txt") as lines:
        assert lines.rereadable and lines.ready()
        first = list(lines)
        lines.rewind()
        assert lines.take_error() is None and lines.number == 0
        assert list(lines) == first
    stream = io.BytesIO(b"read already\nb\n")
    stream.readline()
    lines = Lines(stream, "here")
    assert list(lines) == ["b\n"]
    lines.rewind()
    assert list(lines) == ["b\n"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", False),
        (b"a\n{\n", False),
        (b'\n \n {"text": "a"}', True),
        (BOM + b"{}\n", True),
        (b"\n" * MAX_BLANK_LINES + b"{}\n", True),
        (b"\n" * 3 * CHUNK_BYTES + b"{}\n", False),  # who waits for the end of them may wait for ever
    ],
)
def test_starts_like_json(content: bytes, expected: bool) -> None:
    lines = in_memory(content)
    assert lines.starts_like_json() is expected
    assert "".join(lines).encode() == content.removeprefix(BOM)


def test_pipe_is_ready(pipe: tuple[Lines, io.FileIO]) -> None:
    lines, writer = pipe
    assert not lines.rereadable and not lines.ready()
    writer.write(b"a")
    assert not lines.ready()
    writer.write(b"\nb\nc")
    assert lines.ready() and next(lines) == "a\n"
    assert lines.ready() and next(lines) == "b\n"
    assert not lines.ready()
    writer.close()
    assert lines.ready() and list(lines) == ["c"]


def test_blank_lines_are_not_ready(pipe: tuple[Lines, io.FileIO]) -> None:
    lines, writer = pipe
    writer.write(b"\n \n")
    assert not lines.ready()
    writer.write(b"a\n")
    assert next(lines) == "\n" and not lines.ready()  # what is here already is given before more is read
    assert next(lines) == " \n" and lines.ready()
    assert next(lines) == "a\n" and not lines.ready()


def test_unopenable_files(tmp_path: Path) -> None:
    for file, reason in ((tmp_path / "gone.txt", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(InputError, match=f"cannot be read: {reason}"), Lines.open(file):
            pass


def test_errors_inside_with_pass_through(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n", encoding="utf-8")
    with pytest.raises(BrokenPipeError), Lines.open(tmp_path / "a.txt"):
        raise BrokenPipeError
