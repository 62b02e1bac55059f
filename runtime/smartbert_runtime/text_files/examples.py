"""A whole file of texts in memory, column by column: `read_examples`, for training, evaluation and the bench."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.columns import Columns, check_fields, choose_columns
from smartbert_runtime.text_files.formats import raise_first_error
from smartbert_runtime.text_files.records import open_records
from smartbert_runtime.text_files.values import canonical_label, missing_spellings

# So many labels are listed with their counts.
MOST_LABELS = 20


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Texts of a file with their labels, column by column; `lines` are their line numbers in it, from 1.

    labels: each in one spelling (`canonical_label`). label_names: in the order that the file declares, if it does.
    columns: those that were read: text, pair and label, None where there is none. unit: "line", of parquet "row".
    """

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    lines: tuple[int, ...]
    source: str
    label_names: tuple[str, ...] = ()
    columns: tuple[str, str | None, str | None] = ("text", None, None)
    unit: str = "line"

    def __len__(self) -> int:
        return len(self.texts)

    def describe(self) -> str:
        """What was read, in one line: rows, columns, labels with their counts."""
        text, pair, label = self.columns
        what = f"texts from {text!r}" if pair is None else f"pairs of texts from {text!r} and {pair!r}"
        found = f"{self.source}: {len(self)} {what}"
        if self.labels is None:
            return found
        counts = Counter(self.labels)
        shown = [f"{name} {count}" for name, count in counts.most_common(MOST_LABELS)]
        more = f" and {len(counts) - MOST_LABELS} more" if len(counts) > MOST_LABELS else ""
        return f"{found}, {len(counts)} labels from {label!r}: {', '.join(shown)}{more}"


def read_examples(
    file: Path | str,
    columns: Columns | None = None,
    *,
    labeled: bool = False,
    labels_if_any: bool = False,
    input_format: str | None = None,
) -> Examples:
    """Read every text of a file, or of standard input for `-`; with `labeled`, labels are required.

    labels_if_any: labels are read where the file has their column. input_format: instead of the name's ending.

    Raises InputError, with the line number, for the first thing that cannot be read.
    """
    columns = columns or Columns()
    with open_records(file, input_format) as source:
        records = list(raise_first_error(source.read()))
    if not records:
        raise InputError(f"{source.source} holds no rows", hint="check the file")
    if labels_if_any:
        labeled = any(columns.label in record.fields for record in records)
    return examples_from_rows(
        [record.fields for record in records],
        [record.line for record in records],
        source=source.source,
        columns=columns,
        labeled=labeled,
        label_names=source.label_names.get(columns.label, ()),
        unit=source.unit,
    )


def examples_from_rows(
    rows: Sequence[dict[str, str]],
    lines: Sequence[int],
    *,
    source: str,
    columns: Columns,
    labeled: bool,
    label_names: tuple[str, ...] = (),
    unit: str = "line",
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
        check_fields(row, line, [*required, *([columns.label] if labeled else [])], source, unit)
    return Examples(
        texts=tuple(row[text_column] for row in rows),
        pairs=tuple(row[pair_column] for row in rows) if pair_column else None,
        labels=_labels(rows, lines, columns.label, source, unit) if labeled else None,
        lines=tuple(lines),
        source=source,
        label_names=label_names,
        columns=(text_column, pair_column, columns.label if labeled else None),
        unit=unit,
    )


def _labels(
    rows: Sequence[dict[str, str]], lines: Sequence[int], column: str, source: str, unit: str
) -> tuple[str, ...]:
    """The labels in one spelling each; InputError names the first that stands for a missing value."""
    labels = [row[column] for row in rows]
    missing = missing_spellings(labels)
    for label, line in zip(labels, lines, strict=True):
        if label in missing:
            raise InputError(
                f"{source}, {unit} {line}: {column} is missing ({label})", hint="fill it, or remove the row"
            )
    return tuple(canonical_label(label) for label in labels)
