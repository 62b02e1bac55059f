"""The texts of a file or a pipe one at a time, and in windows to classify together: of a pipe, what has arrived."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.columns import Columns, check_fields, choose_columns
from smartbert_runtime.text_files.formats import Record, read_records
from smartbert_runtime.text_files.lines import Lines

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class InputText:
    """One text, or pair of texts, to classify. index: its record's, from 0, bad ones counted. line: where it ends."""

    index: int
    line: int
    text: str
    pair: str | None


def read_texts(lines: Lines, format: str, columns: Columns) -> Iterator[InputText | InputError]:
    """Yield the texts that `read_examples` reads, one at a time; for a bad record its InputError is yielded.

    Columns that are not named are chosen by the header; in jsonl by the first object that has a text, and later objects
    must have the same ones (`read_examples` knows all objects and takes the columns of any).
    Raises InputError for errors of the whole file: no records at all, an unusable header.
    """
    chosen: tuple[str, str | None] | None = None
    index = -1
    for index, record in enumerate(read_records(lines, format)):
        if isinstance(record, InputError):
            yield record
            continue
        try:
            chosen = chosen or _choose(record, format, columns, lines.source)
            text = _input_text(index, record, chosen, lines.source)
        except InputError as err:
            if chosen is None and format != "jsonl":
                raise  # the header is the same for every row
            yield err
        else:
            yield text
    if index < 0:
        raise InputError(f"{lines.source} holds no rows", hint="check the file")


def _choose(record: Record, format: str, columns: Columns, source: str) -> tuple[str, str | None]:
    where = f"{source}, line {record.line}" if format == "jsonl" else source
    return choose_columns(list(record.fields), columns, where)


def _input_text(index: int, record: Record, chosen: tuple[str, str | None], source: str) -> InputText:
    text, pair = chosen
    fields = record.fields
    check_fields(fields, record.line, [text, *([pair] if pair else [])], source)
    return InputText(index=index, line=record.line, text=fields[text], pair=fields[pair] if pair else None)


def check_each(
    items: Iterable[InputText | InputError], check: Callable[[InputText], object], source: str
) -> Iterator[InputText | InputError]:
    """Yield the items; for a text for which `check` raises InputError, that error with the text's line number."""
    for item in items:
        yield item if isinstance(item, InputError) else _checked(item, check, source)


def _checked(text: InputText, check: Callable[[InputText], object], source: str) -> InputText | InputError:
    try:
        check(text)
    except InputError as err:
        return InputError(f"{source}, line {text.line}: {err}", hint=err.hint)
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
