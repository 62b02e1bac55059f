"""Texts of a file or a pipe one by one, in windows that are answered together: of a pipe, what has arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.columns import Columns, check_row, choose_columns
from smartbert_runtime.text_files.formats import Row, read_rows
from smartbert_runtime.text_files.lines import Lines

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One text of many; `index` counts all records from 0, bad ones too, and `line` is the line that it ends on."""

    index: int
    line: int
    text: str
    pair: str | None


def read_records(lines: Lines, format: str, columns: Columns) -> Iterator[Record | InputError]:
    """The texts that `read_examples` reads, one at a time; a bad record's InputError is given in its place.

    Columns that are not named are chosen by the header; of jsonl by the first object that has a text, which later ones
    then follow (`read_examples` knows all rows and takes the columns of any).
    Raises InputError for what no later record can mend: no rows at all, a header that cannot be used.
    """
    chosen: tuple[str, str | None] | None = None
    index = -1
    for index, row in enumerate(read_rows(lines, format)):
        if isinstance(row, InputError):
            yield row
            continue
        try:
            chosen = chosen or _choose(row, format, columns, lines.source)
            record = _record(index, row, chosen, lines.source)
        except InputError as err:
            if chosen is None and format != "jsonl":
                raise  # the header is every row's
            yield err
        else:
            yield record
    if index < 0:
        raise InputError(f"{lines.source} holds no rows", hint="check the file")


def _choose(row: Row, format: str, columns: Columns, source: str) -> tuple[str, str | None]:
    return choose_columns(list(row.fields), columns, f"{source}, line {row.line}" if format == "jsonl" else source)


def _record(index: int, row: Row, chosen: tuple[str, str | None], source: str) -> Record:
    text, pair = chosen
    check_row(row.fields, row.line, [text, *([pair] if pair else [])], source)
    return Record(index=index, line=row.line, text=row.fields[text], pair=row.fields[pair] if pair else None)


def accepted(
    items: Iterable[Record | InputError], accept: Callable[[Record], object], source: str
) -> Iterator[Record | InputError]:
    """The items; in place of a record for which `accept` raises InputError, that error with the record's line."""
    for item in items:
        yield item if isinstance(item, InputError) else _accepted(item, accept, source)


def _accepted(record: Record, accept: Callable[[Record], object], source: str) -> Record | InputError:
    try:
        accept(record)
    except InputError as err:
        return InputError(f"{source}, line {record.line}: {err}", hint=err.hint)
    return record


def windows(items: Iterable[Item], size: int, ready: Callable[[], bool] = lambda: True) -> Iterator[list[Item]]:
    """The items in lists of `size`, shorter where `ready` says that the next item would have to be waited for.

    An InputError of `items` comes after the window of what was before it.
    """
    window: list[Item] = []
    try:
        for item in items:
            window.append(item)
            if len(window) == size or not ready():
                yield window
                window = []
    except InputError:
        if window:
            yield window
        raise
    if window:
        yield window
