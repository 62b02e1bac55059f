"""A whole file of texts in memory, column by column: `read_examples`, for training, evaluation and the bench."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.columns import Columns, check_fields, choose_columns
from smartbert_runtime.text_files.formats import file_format, raise_first_error, read_records
from smartbert_runtime.text_files.lines import Lines


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Texts of a file with their labels, column by column; `lines` are their line numbers in it, from 1."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    lines: tuple[int, ...]
    source: str

    def __len__(self) -> int:
        return len(self.texts)


def read_examples(
    file: Path | str, columns: Columns | None = None, *, labeled: bool = False, labels_if_any: bool = False
) -> Examples:
    """Read every text of a file, or of standard input for `-`; with `labeled`, labels are required.

    labels_if_any: labels are read where the file has their column.

    Raises InputError, with the line number, for the first thing that cannot be read.
    """
    columns = columns or Columns()
    with Lines.open(file) as lines:
        records = list(raise_first_error(read_records(lines, file_format(file, lines))))
    if not records:
        raise InputError(f"{lines.source} holds no rows", hint="check the file")
    if labels_if_any:
        labeled = any(columns.label in record.fields for record in records)
    return examples_from_rows(
        [record.fields for record in records],
        [record.line for record in records],
        source=lines.source,
        columns=columns,
        labeled=labeled,
    )


def examples_from_rows(
    rows: Sequence[dict[str, str]], lines: Sequence[int], *, source: str, columns: Columns, labeled: bool
) -> Examples:
    """Take the text, pair and label columns out of table rows; every row must fill them."""
    available = list(dict.fromkeys(column for row in rows for column in row))
    text_column, pair_column = choose_columns(available, columns, source)
    required = [text_column, *([pair_column] if pair_column else [])]
    if labeled and columns.label not in available:
        raise InputError(
            f"{source} has no column {columns.label!r} for the labels",
            hint=f"its columns: {', '.join(available)}; name one with --label-column",
        )
    for row, line in zip(rows, lines, strict=True):
        check_fields(row, line, [*required, *([columns.label] if labeled else [])], source)
    return Examples(
        texts=tuple(row[text_column] for row in rows),
        pairs=tuple(row[pair_column] for row in rows) if pair_column else None,
        labels=tuple(row[columns.label] for row in rows) if labeled else None,
        lines=tuple(lines),
        source=source,
    )
