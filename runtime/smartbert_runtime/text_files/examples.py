"""Whole files of texts, column by column, with the line number in every error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.columns import Columns, check_row, choose_columns
from smartbert_runtime.text_files.formats import all_good, file_format, read_rows
from smartbert_runtime.text_files.lines import Lines


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


def read_examples(file: Path | str, columns: Columns | None = None, *, labeled: bool = False) -> Examples:
    """The texts of a file, or of standard input for `-`; with `labeled`, the label column must be there.

    Raises InputError naming the line for anything that cannot be read.
    """
    columns = columns or Columns()
    with Lines.open(file) as lines:
        rows = list(all_good(read_rows(lines, file_format(file, lines))))
    if not rows:
        raise InputError(f"{lines.source} holds no rows", hint="check the file")
    return examples_from_rows(
        [row.fields for row in rows],
        [row.line for row in rows],
        source=lines.source,
        columns=columns,
        labeled=labeled,
    )


def examples_from_rows(
    rows: Sequence[dict[str, str]], lines: Sequence[int], *, source: str, columns: Columns, labeled: bool
) -> Examples:
    """Pick the text, pair and label columns out of `rows`; every row must fill them."""
    available = list(dict.fromkeys(column for row in rows for column in row))
    text_column, pair_column = choose_columns(available, columns, source)
    wanted = [text_column, *([pair_column] if pair_column else [])]
    if labeled and columns.label not in available:
        raise InputError(
            f"{source} has no column {columns.label!r} for the labels",
            hint=f"its columns: {', '.join(available)}; name one with --label-column",
        )
    for row, line in zip(rows, lines, strict=True):
        check_row(row, line, [*wanted, *([columns.label] if labeled else [])], source)
    return Examples(
        texts=tuple(row[text_column] for row in rows),
        pairs=tuple(row[pair_column] for row in rows) if pair_column else None,
        labels=tuple(row[columns.label] for row in rows) if labeled else None,
        lines=tuple(lines),
        source=source,
    )
