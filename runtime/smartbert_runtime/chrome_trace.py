"""Writing when each part ran as a Chrome trace, which chrome://tracing and ui.perfetto.dev draw."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from smartbert_runtime.errors import InputError
from smartbert_runtime.trace import Trace


class ChromeTrace:
    """Writes events as they come; the part runs of a batch are written once, with the first of its texts."""

    def __init__(self, file: Path, stream: TextIO) -> None:
        self._file, self._stream = file, stream
        self._batches: set[float] = set()

    def add(self, trace: Trace) -> None:
        """Write the part runs of this text's batch."""
        if not trace.batch_runs or trace.batch_runs[0].started in self._batches:
            return
        for run in trace.batch_runs:
            event = {
                "name": run.part,
                "ph": "X",
                "ts": run.started * 1e6,
                "dur": run.seconds * 1e6,
                "pid": 1,
                "tid": 1,
                "args": {"rows": run.rows},
            }
            with _writing(self._file):
                self._stream.write((",\n" if self._batches else "\n") + json.dumps(event))
            self._batches.add(trace.batch_runs[0].started)


@contextmanager
def chrome_trace(file: Path) -> Iterator[ChromeTrace]:
    """A trace to add to; `file` is written whole on exit, or not at all. InputError when it cannot be written."""
    if file.exists() and not file.is_file():
        raise InputError(f"{file} cannot be written: it is not a file", hint="name a file for the trace")
    with _writing(file):
        descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    staged = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            with _writing(file):
                stream.write('{"displayTimeUnit": "ms", "traceEvents": [')
            yield ChromeTrace(file, stream)
            with _writing(file):
                stream.write("\n]}\n")
                stream.flush()
        with _writing(file):
            staged.chmod(0o644)
            staged.replace(file)
    finally:
        staged.unlink(missing_ok=True)


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """Turn errors of the trace file, and of no other, into InputError."""
    try:
        yield
    except OSError as err:
        raise InputError(
            f"{file} cannot be written: {err.strerror}", hint="name a file in a folder that exists"
        ) from err
