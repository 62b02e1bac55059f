"""Lines of a file or a pipe, read as they are asked for; of a pipe it is known whether the next one has arrived."""

from __future__ import annotations

import codecs
import io
import os
import select
import stat
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from smartbert_runtime.errors import InputError

CHUNK_BYTES = 1 << 16
# Standard input is known by its first line with something in it; so many empty ones before it are looked past.
MOST_EMPTY_LINES = 1000


class Lines:
    r"""The lines of a byte stream as text, each with its end; a byte order mark in front is none of it.

    A line ends at \n alone. Of what was read and not yet asked for, CHUNK_BYTES and one line are held at most. A line
    that is not UTF-8 comes with surrogates in place of its bad bytes, so that what follows it can be read, and `damage`
    tells of it.
    """

    def __init__(self, stream: io.BufferedIOBase, source: str) -> None:
        self.source = source
        self.rereadable = _is_file(stream)
        self._stream = stream
        self._start = stream.tell() if self.rereadable else 0
        self._begin()

    def _begin(self) -> None:
        self.number = 0  # of the line that was given last, from 1
        self._arrived: deque[bytes] = deque()
        self._filled = 0  # how many of them are more than white space
        self._rest = b""
        self._ended = False
        self._damaged: int | None = None

    @classmethod
    @contextmanager
    def open(cls, file: Path | str) -> Iterator[Lines]:
        """The lines of a file, closed at the end, or of standard input for `-`; InputError when there is none."""
        if str(file) == "-":
            yield cls(cast(io.BufferedIOBase, sys.stdin.buffer), "standard input")
            return
        try:
            stream = Path(file).open("rb")  # noqa: SIM115 (the `with` below must not take what goes wrong later for this)
        except OSError as err:
            raise _unreadable(str(file), err) from err
        with stream:
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
            self._damaged = self._damaged or self.number
            return line.decode(errors="surrogateescape")

    def _read(self) -> None:
        try:
            chunk = self._stream.read1(CHUNK_BYTES)
        except OSError as err:
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

    def damage(self) -> InputError | None:
        """The refusal of the first line since the last question that was not UTF-8, if there was one."""
        number, self._damaged = self._damaged, None
        if number is None:
            return None
        return InputError(f"{self.source}, line {number}: not UTF-8 text", hint="convert the file to UTF-8")

    def ready(self) -> bool:
        """Whether reading on brings a line, or the end, without waiting; true of every file.

        Empty lines alone are nothing to read on for: jsonl and csv pass over them and would wait for the next.
        """
        if self.rereadable or os.name == "nt":  # Windows can ask this of sockets only
            return True
        while not self._arrived and not self._ended:
            if not select.select([self._stream], [], [], 0)[0]:
                return False
            self._read()
        return self._filled > 0 or self._ended

    def begin_like_json(self) -> bool:
        """Whether the first line with something in it opens an object; nothing is used up by looking."""
        while not self._filled and not self._ended and len(self._arrived) < MOST_EMPTY_LINES:
            self._read()
        return next((line.lstrip().startswith(b"{") for line in self._arrived if line.strip()), False)

    def rewind(self) -> None:
        """Begin again; only what is `rereadable` can."""
        self._stream.seek(self._start)
        self._begin()


def _is_file(stream: io.BufferedIOBase) -> bool:
    """Whether the stream can be read twice; `seekable` is no answer, for Windows says yes of a pipe."""
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except io.UnsupportedOperation:  # bytes in memory
        return stream.seekable()


def _unreadable(source: str, err: OSError) -> InputError:
    return InputError(f"{source} cannot be read: {err.strerror}", hint="check the path")
