"""Rows of txt, csv, tsv (no quoting, as GLUE has it) and jsonl; one that cannot be read comes as its error."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.lines import Lines

FORMATS = ("txt", "csv", "tsv", "jsonl")

Item = TypeVar("Item")


@dataclass(frozen=True)
class Row:
    """The columns of one row, and the number of the line that it ends on."""

    line: int
    fields: dict[str, str]


def file_format(file: Path | str, lines: Lines) -> str:
    """One of FORMATS, by the file's ending; standard input is jsonl when it begins like it, else txt."""
    if str(file) == "-":
        return "jsonl" if lines.begin_like_json() else "txt"
    suffix = Path(file).suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        raise InputError(f"{file}: unknown kind of file", hint="known endings: ." + ", .".join(FORMATS))
    return suffix


def read_rows(lines: Lines, format: str) -> Iterator[Row | InputError]:
    """The rows one by one; a bad row's InputError is given in its place, and reading goes on behind it.

    InputError is raised for what no later row can mend: a header that cannot be used, a file that cannot be read on.
    """
    if format == "txt":
        for text in lines:
            yield lines.damage() or Row(lines.number, {"text": text.rstrip("\r\n")})
    elif format == "jsonl":
        for text in lines:
            if text.strip():
                yield lines.damage() or _json_row(text, lines)
    else:
        yield from _table_rows(lines, format)


def all_good(items: Iterable[Item | InputError]) -> Iterator[Item]:
    """The items; the first InputError among them is raised."""
    for item in items:
        if isinstance(item, InputError):
            raise item
        yield item


def _json_row(text: str, lines: Lines) -> Row | InputError:
    where = f"{lines.source}, line {lines.number}"
    try:
        value = json.loads(text, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as err:  # the second: brackets in brackets in brackets
        return InputError(f"{where}: not JSON ({err})", hint="one JSON object a line")
    if not isinstance(value, dict):
        return InputError(f"{where}: not a JSON object", hint='like {"text": "..."}')
    return Row(lines.number, {key: field for key, item in value.items() if (field := _scalar(item)) is not None})


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object; ValueError for a key that occurs twice, of which json would silently keep the last."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the column {repeated!r} occurs twice")
    return fields


def _scalar(value: object) -> str | None:
    """A JSON value as text: null is empty, lists and objects are no columns."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, (int, float)) else None


def _table_rows(lines: Lines, format: str) -> Iterator[Row | InputError]:
    # In tables a lone \r ends a line too, as old spreadsheets write it.
    parts = (part for line in lines for part in io.StringIO(line, newline=""))
    if format == "tsv":
        reader = csv.reader(parts, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(parts, strict=True)
    header = _header(reader, lines)
    check = "tsv files have no quoting: a tab is always a new field" if format == "tsv" else "check quotes"
    while True:
        began = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as err:  # the reader goes on with the next line
            yield lines.damage() or _table_error(err, reader, lines, began)
            continue
        if values is None:
            return
        if not values:
            continue
        where, found = f"{lines.source}, line {reader.line_num}", len(values)
        yield lines.damage() or (
            Row(reader.line_num, dict(zip(header, values, strict=True)))
            if found == len(header)
            else InputError(f"{where}: {found} fields where the header has {len(header)}", hint=check)
        )


def _header(reader: Any, lines: Lines) -> list[str]:
    """The names of the columns; `reader` is a csv.reader, a type without a name."""
    try:
        header: list[str] = next(reader, [])
    except csv.Error as err:
        raise _table_error(err, reader, lines, 1) from err
    if damage := lines.damage():
        raise damage
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise InputError(f"{lines.source}: the column {repeated[0]!r} occurs twice", hint="rename one of them")
    return header


def _table_error(err: csv.Error, reader: Any, lines: Lines, began: int) -> InputError:
    last = reader.line_num
    where = f"line {last}" if began >= last else f"lines {began} to {last}"
    return InputError(f"{lines.source}, {where}: {err}", hint="check the quotes")
