"""Parsing txt, csv, tsv and jsonl into records; a bad record is yielded as its error."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.lines import Lines
from smartbert_runtime.text_files.tsv_quotes import is_quoted, unquote_all, unquote_doubled
from smartbert_runtime.text_files.values import as_text

# "json" is read as jsonl: one object a line, as most libraries write it.
FORMATS = ("txt", "csv", "tsv", "jsonl", "json", "parquet")
# Characters of a cell. The csv module's own limit, 131,072, is shorter than some texts; without one, a quote that is
# never closed would swallow the rest of the file.
LONGEST_CELL = 2**22

Item = TypeVar("Item")


@dataclass(frozen=True)
class Record:
    """One record of a file: its fields by column name, and the number of the line on which it ends.

    Of txt a line, of csv and tsv a table row, of jsonl an object.
    """

    line: int
    fields: dict[str, str]


def format_of_name(file: Path | str) -> str:
    """One of FORMATS, by the file name's ending, before .gz; InputError for another."""
    path = Path(file)
    if path.suffix.lower() == ".gz":
        path = path.with_suffix("")
    suffix = path.suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        raise InputError(
            f"{file}: unknown kind of file", hint="known endings: ." + ", .".join(FORMATS) + ", and .gz after them"
        )
    return suffix


def read_records(lines: Lines, format: str) -> Iterator[Record | InputError]:
    """Yield the records one by one; for a bad one its InputError is yielded, and reading continues after it.

    Raises InputError for errors that make the rest unreadable: an unusable header, a failing read.
    """
    if format == "txt":
        for text in lines:
            yield lines.take_error() or Record(lines.number, {"text": text.rstrip("\r\n")})
    elif format in ("jsonl", "json"):
        for text in lines:
            if text.strip():
                yield lines.take_error() or _json_record(text, lines)
    else:
        yield from _table_records(lines, format)


def raise_first_error(items: Iterable[Item | InputError]) -> Iterator[Item]:
    """Yield the items; the first InputError among them is raised instead."""
    for item in items:
        if isinstance(item, InputError):
            raise item
        yield item


def _json_record(text: str, lines: Lines) -> Record | InputError:
    where = f"{lines.source}, line {lines.number}"
    try:
        value = json.loads(text, object_pairs_hook=_reject_repeated_keys)
    except (ValueError, RecursionError) as err:  # RecursionError: deeply nested brackets
        return InputError(f"{where}: not JSON ({err})", hint="one JSON object a line, not one list over several")
    if not isinstance(value, dict):
        return InputError(f"{where}: not a JSON object", hint='like {"text": "..."}, one a line')
    return Record(lines.number, {key: field for key, item in value.items() if (field := as_text(item)) is not None})


def _reject_repeated_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; ValueError for a repeated key, of which json would silently keep the last."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the column {repeated!r} occurs twice")
    return fields


def _table_records(lines: Lines, format: str) -> Iterator[Record | InputError]:
    # In tables a single \r ends a line too: old spreadsheets write it.
    parts = (part for line in lines for part in io.StringIO(line, newline=""))
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    if format == "tsv":
        reader = csv.reader(parts, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(parts, strict=True)
    header, clean = _header(reader, lines, format)
    tsv_hint = "in tsv files a tab is always a new field and a line end a new row: save it as csv"
    hint = tsv_hint if format == "tsv" else "check quotes"
    while True:
        first_line = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as err:  # the reader continues with the next line
            yield lines.take_error() or _table_error(err, reader, lines, first_line)
            continue
        if values is None:
            return
        if not values:
            continue
        where, count = f"{lines.source}, line {reader.line_num}", len(values)
        yield lines.take_error() or (
            Record(reader.line_num, dict(zip(header, clean(values), strict=True)))
            if count == len(header)
            else InputError(f"{where}: {count} fields where the header has {len(header)}", hint=hint)
        )


def _header(reader: Any, lines: Lines, format: str) -> tuple[list[str], Callable[[list[str]], list[str]]]:
    """The column names, and what undoes the quotes of a row; `reader` is a csv.reader, a type without public name."""
    try:
        header: list[str] = next(reader, [])
    except csv.Error as err:
        raise _table_error(err, reader, lines, 1) from err
    if error := lines.take_error():
        raise error
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise InputError(f"{lines.source}: the column {repeated[0]!r} occurs twice", hint="rename one of them")
    if format != "tsv":
        return header, list
    if header and all(is_quoted(name) for name in header):
        return unquote_all(header), unquote_all
    return header, unquote_doubled


def _table_error(err: csv.Error, reader: Any, lines: Lines, first_line: int) -> InputError:
    last = reader.line_num
    where = f"line {last}" if first_line >= last else f"lines {first_line} to {last}"
    return InputError(f"{lines.source}, {where}: {err}", hint="check the quotes")
