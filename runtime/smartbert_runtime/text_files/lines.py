"""Reading lines from a file or a pipe in small chunks, UTF-8 errors line by line, without blocking on a slow pipe."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import select
import stat
import sys
import zlib
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from smartbert_runtime.errors import InputError

CHUNK_BYTES = 1 << 16
# The format of standard input is recognized by its first line that is not blank; at most so many blank ones precede it.
MAX_BLANK_LINES = 1000


class Lines:
    r"""The lines of a byte stream as text, line ends included, a leading byte order mark removed.

    Only \n ends a line. At most CHUNK_BYTES and one line are read ahead. A line that is not UTF-8 is returned with
    surrogates instead of its bad bytes, so that reading can continue, and `take_error` returns its error.
    """

    def __init__(self, stream: io.BufferedIOBase, source: str) -> None:
        self.source = source
        self.rereadable = _is_file(stream)
        self._stream = stream
        self._start = stream.tell() if self.rereadable else 0
        self._reset()

    def _reset(self) -> None:
        self.number = 0  # of the line returned last, from 1
        self._arrived: deque[bytes] = deque()
        self._filled = 0  # how many of them are not blank
        self._rest = b""
        self._ended = False
        self._bad_line: int | None = None

    @classmethod
    @contextmanager
    def open(cls, file: Path | str) -> Iterator[Lines]:
        """The lines of a file, closed on exit, or of standard input for `-`; InputError when it cannot be opened."""
        if str(file) == "-":
            yield cls(cast(io.BufferedIOBase, sys.stdin.buffer), "standard input")
            return
        try:
            stream = Path(file).open("rb")  # noqa: SIM115 (the `except` is for opening only)
        except OSError as err:
            raise _unreadable(str(file), err) from err
        with stream:
            if str(file).lower().endswith(".gz"):
                with gzip.open(stream) as unpacked:
                    yield cls(cast(io.BufferedIOBase, unpacked), str(file))
            else:
                yield cls(stream, str(file))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while not self._arrived and not self._ended:
            self._read()
        if not self._arrived:
            raise StopIteration
        line = self._arrived.popleft()
        self._filled -= bool(line.strip())
        self.number += 1
        try:
            return line.decode()
        except UnicodeDecodeError:
            self._bad_line = self._bad_line or self.number
            return line.decode(errors="surrogateescape")

    def _read(self) -> None:
        try:
            chunk = self._stream.read1(CHUNK_BYTES)
        except (OSError, EOFError, zlib.error) as err:  # the last two: a .gz file that is cut off or damaged
            raise _unreadable(self.source, err) from err
        self._ended = not chunk
        content = self._rest + chunk
        if self.number == 0 and not self._arrived:
            content = content.removeprefix(codecs.BOM_UTF8)
        *whole, self._rest = content.split(b"\n")
        arrived = [line + b"\n" for line in whole]
        if self._ended and self._rest:
            arrived.append(self._rest)
        self._arrived.extend(arrived)
        self._filled += sum(bool(line.strip()) for line in arrived)

    def take_error(self) -> InputError | None:
        """The error of the first line since the last call that was not UTF-8; None when all were."""
        number, self._bad_line = self._bad_line, None
        if number is None:
            return None
        return InputError(f"{self.source}, line {number}: not UTF-8 text", hint="convert the file to UTF-8")

    def ready(self) -> bool:
        """Whether the next line, or the end, can be read without blocking; always true of a file.

        Blank lines do not count: jsonl and csv skip them and would block on the line after them.
        """
        if self.rereadable or os.name == "nt":  # on Windows, select works with sockets only
            return True
        while not self._arrived and not self._ended:
            if not select.select([self._stream], [], [], 0)[0]:
                return False
            self._read()
        return self._filled > 0 or self._ended

    def starts_like_json(self) -> bool:
        """Whether the first line that is not blank opens a JSON object; no line is consumed."""
        while not self._filled and not self._ended and len(self._arrived) < MAX_BLANK_LINES:
            self._read()
        return next((line.lstrip().startswith(b"{") for line in self._arrived if line.strip()), False)

    def rewind(self) -> None:
        """Start again from the first line; only for a `rereadable` stream."""
        self._stream.seek(self._start)
        self._reset()


def _is_file(stream: io.BufferedIOBase) -> bool:
    """Whether the stream can be read twice; `seekable` does not answer it, being true of a pipe on Windows."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except io.UnsupportedOperation:  # bytes in memory
        return stream.seekable()


def _unreadable(source: str, err: Exception) -> InputError:
    return InputError(f"{source} cannot be read: {getattr(err, 'strerror', None) or err}", hint="check the path")
