"""One door to every kind of file: `open_records` yields its records, whatever the format and where it comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.formats import FORMATS, Record, format_of_name, read_records
from smartbert_runtime.text_files.lines import Lines
from smartbert_runtime.text_files.parquet import ParquetRecords


class LineRecords:
    """The records of a file, or of standard input, that consists of lines."""

    unit = "line"
    label_names: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, lines: Lines, format: str) -> None:
        self._lines, self.format = lines, format
        self.source, self.rereadable = lines.source, lines.rereadable

    def read(self) -> Iterator[Record | InputError]:
        """The records from here on; a bad one is yielded as its error."""
        return read_records(self._lines, self.format)

    def ready(self) -> bool:
        """Whether the next record, or the end, can be read without waiting for a pipe."""
        return self._lines.ready()

    def rewind(self) -> None:
        """Start again from the first line; only where `rereadable`."""
        self._lines.rewind()


Records = LineRecords | ParquetRecords


@contextmanager
def open_records(file: Path | str, input_format: str | None = None) -> Iterator[Records]:
    """The records of a file, closed on exit, or of standard input for `-`.

    input_format: one of FORMATS; None goes by the name's ending (before .gz), and on standard input by the first line:
    jsonl where it starts like it, otherwise txt.
    Raises InputError for an unknown format and for a file that cannot be opened.
    """
    if input_format is not None and input_format not in FORMATS:
        raise InputError(f"unknown format {input_format!r}", hint="known formats: " + ", ".join(FORMATS))
    piped = str(file) == "-"
    format = input_format or (None if piped else format_of_name(file))
    if format == "parquet":
        if piped or str(file).lower().endswith(".gz"):
            raise InputError(f"{file}: parquet is read from an uncompressed file", hint="save it and name the file")
        yield ParquetRecords(Path(file))
        return
    with Lines.open(file) as lines:
        yield LineRecords(lines, format or ("jsonl" if lines.starts_like_json() else "txt"))
