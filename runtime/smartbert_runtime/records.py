"""Texts from files: txt, csv, tsv (no quoting, as GLUE has it) and jsonl, with the line number in every error."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from smartbert_runtime.errors import InputError

FORMATS = ("txt", "csv", "tsv", "jsonl")

# The columns that public data sets use, tried in this order when none are named: first text, second text.
KNOWN_COLUMNS: tuple[tuple[str, str | None], ...] = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("text", "text_pair"),
    ("sentence", None),
    ("sentence1", None),
    ("question", None),
    ("text", None),
)
LABEL_COLUMN = "label"


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Which columns to read; None for `text` finds text and pair by KNOWN_COLUMNS."""

    text: str | None = None
    pair: str | None = None
    label: str = LABEL_COLUMN


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows of a file, column by column; `lines` are 1-based line numbers in it."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    lines: tuple[int, ...]
    source: str

    def __len__(self) -> int:
        return len(self.texts)


@dataclass(frozen=True)
class _Row:
    line: int
    fields: dict[str, str]


def read_examples(file: Path | str, columns: Columns | None = None, *, labelled: bool = False) -> Examples:
    """The texts of a file, or of standard input for `-`; with `labelled`, the label column must be there.

    Raises InputError naming the line for anything that cannot be read.
    """
    columns = columns or Columns()
    source = "standard input" if str(file) == "-" else str(file)
    text = _decode(_read_bytes(file), source)
    rows = list(_rows(text, _format(file, text), source))
    if not rows:
        raise InputError(f"{source} holds no rows", hint="check the file")
    return examples_from_rows(
        [row.fields for row in rows],
        [row.line for row in rows],
        source=source,
        columns=columns,
        labelled=labelled,
    )


def examples_from_rows(
    rows: Sequence[dict[str, str]], lines: Sequence[int], *, source: str, columns: Columns, labelled: bool
) -> Examples:
    """Pick the text, pair and label columns out of `rows`; every row must fill them."""
    available = list(dict.fromkeys(column for row in rows for column in row))
    text_column, pair_column = choose_columns(available, columns, source)
    if text_column == pair_column:
        raise InputError(f"{text_column!r} cannot be both the text and its pair", hint="change --pair-column")
    wanted = [text_column, *([pair_column] if pair_column else [])]
    if labelled and columns.label not in available:
        raise InputError(
            f"{source} has no column {columns.label!r} for the labels",
            hint=f"its columns: {', '.join(available)}; name one with --label-column",
        )
    for row, line in zip(rows, lines, strict=True):
        for column in [*wanted, *([columns.label] if labelled else [])]:
            if not row.get(column, "").strip():
                raise InputError(f"{source}, line {line}: {column} is empty", hint="fill it, or remove the line")
            try:
                row[column].encode()
            except UnicodeEncodeError as err:  # half a surrogate pair, which JSON can spell
                raise InputError(f"{source}, line {line}: {column} is not Unicode text", hint="repair it") from err
    return Examples(
        texts=tuple(row[text_column] for row in rows),
        pairs=tuple(row[pair_column] for row in rows) if pair_column else None,
        labels=tuple(row[columns.label] for row in rows) if labelled else None,
        lines=tuple(lines),
        source=source,
    )


def choose_columns(available: Sequence[str], columns: Columns, source: str) -> tuple[str, str | None]:
    """The text column and the pair column (None: single texts); InputError lists the columns there are."""
    for name in (columns.text, columns.pair):
        if name is not None and name not in available:
            raise InputError(f"{source} has no column {name!r}", hint=f"its columns: {', '.join(available)}")
    if columns.text is not None:
        return columns.text, columns.pair
    for text, pair in KNOWN_COLUMNS:
        if text in available and (pair is None or pair in available):
            return text, columns.pair or pair
    if not available:
        raise InputError(f"{source} names no column", hint='like {"text": "..."}')
    raise InputError(
        f"{source}: which column holds the text?",
        hint=f"name one of {', '.join(available)} with --text-column",
    )


def _read_bytes(file: Path | str) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(file).read_bytes()
    except OSError as err:
        raise InputError(f"{file} cannot be read: {err.strerror}", hint="check the path") from err


def _decode(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        line = err.object[: err.start].count(b"\n") + 1  # err.object: without the byte order mark
        raise InputError(f"{source}, line {line}: not UTF-8 text", hint="convert the file to UTF-8") from err


def _format(file: Path | str, text: str) -> str:
    if str(file) == "-":
        return "jsonl" if text.lstrip().startswith("{") else "txt"
    suffix = Path(file).suffix.lower().lstrip(".")
    if suffix not in FORMATS:
        raise InputError(f"{file}: unknown kind of file", hint="known endings: ." + ", .".join(FORMATS))
    return suffix


def _rows(text: str, kind: str, source: str) -> Iterator[_Row]:
    if kind == "txt":
        for number, line in enumerate(io.StringIO(text), start=1):
            yield _Row(number, {"text": line.rstrip("\r\n")})
    elif kind == "jsonl":
        yield from _json_rows(text, source)
    else:
        yield from _table_rows(text, kind, source)


def _json_rows(text: str, source: str) -> Iterator[_Row]:
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_without_repeats)
        except ValueError as err:
            raise InputError(f"{source}, line {number}: not JSON ({err})", hint="one JSON object a line") from err
        if not isinstance(value, dict):
            raise InputError(f"{source}, line {number}: not a JSON object", hint='like {"text": "..."}')
        yield _Row(number, {key: field for key, item in value.items() if (field := _scalar(item)) is not None})


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


def _table_rows(text: str, kind: str, source: str) -> Iterator[_Row]:
    lines = io.StringIO(text, newline="")
    if kind == "tsv":
        reader = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(lines, strict=True)
    try:
        header = next(reader, [])
        repeated = sorted({name for name in header if header.count(name) > 1})
        if repeated:
            raise InputError(f"{source}: the column {repeated[0]!r} occurs twice", hint="rename one of them")
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise InputError(
                    f"{source}, line {reader.line_num}: {len(values)} fields where the header has {len(header)}",
                    hint="tsv files have no quoting: a tab is always a new field" if kind == "tsv" else "check quotes",
                )
            yield _Row(reader.line_num, dict(zip(header, values, strict=True)))
    except csv.Error as err:
        raise InputError(f"{source}, line {reader.line_num}: {err}", hint="check the quotes") from err
