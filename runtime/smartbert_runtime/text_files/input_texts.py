"""The texts of a file or a pipe one at a time, and in windows to classify together: of a pipe, what has arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.columns import Columns, check_fields, choose_columns
from smartbert_runtime.text_files.formats import Record
from smartbert_runtime.text_files.records import Records

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class InputText:
    """One text, or pair of texts, to classify. index: its record's, from 0, bad ones counted. line: where it ends."""

    index: int
    line: int
    text: str
    pair: str | None


def read_texts(records: Records, columns: Columns) -> Iterator[InputText | InputError]:
    """Yield the texts that `read_examples` reads, one at a time; for a bad record its InputError is yielded.

    Columns that are not named are chosen by the header; in jsonl by the first object that has a text, and later objects
    must have the same ones (`read_examples` knows all objects and takes the columns of any).
    Raises InputError for errors of the whole file: no records at all, an unusable header.
    """
    chosen: tuple[str, str | None] | None = None
    index = -1
    for index, record in enumerate(records.read()):
        if isinstance(record, InputError):
            yield record
            continue
        try:
            chosen = chosen or _choose(record, records, columns)
            text = _input_text(index, record, chosen, records)
        except InputError as err:
            if chosen is None and records.format not in ("jsonl", "json"):
                raise  # the header is the same for every row
            yield err
        else:
            yield text
    if index < 0:
        raise InputError(f"{records.source} holds no rows", hint="check the file")


def _choose(record: Record, records: Records, columns: Columns) -> tuple[str, str | None]:
    where = f"{records.source}, line {record.line}" if records.format in ("jsonl", "json") else records.source
    return choose_columns(list(record.fields), columns, where)


def _input_text(index: int, record: Record, chosen: tuple[str, str | None], records: Records) -> InputText:
    text, pair = chosen
    fields = record.fields
    check_fields(fields, record.line, [text, *([pair] if pair else [])], records.source, records.unit)
    return InputText(index=index, line=record.line, text=fields[text], pair=fields[pair] if pair else None)


def check_each(
    items: Iterable[InputText | InputError], check: Callable[[InputText], object], records: Records
) -> Iterator[InputText | InputError]:
    """Yield the items; for a text for which `check` raises InputError, that error with the text's line number."""
    for item in items:
        yield item if isinstance(item, InputError) else _checked(item, check, records)


def _checked(text: InputText, check: Callable[[InputText], object], records: Records) -> InputText | InputError:
    try:
        check(text)
    except InputError as err:
        return InputError(f"{records.source}, {records.unit} {text.line}: {err}", hint=err.hint)
    return text


def windows(items: Iterable[Item], size: int, ready: Callable[[], bool] = lambda: True) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`, shorter where `ready` is false: where waiting for the next would block.

    An InputError raised by `items` is raised after the window of the items before it.
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
