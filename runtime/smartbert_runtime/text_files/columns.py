"""Which columns of a file hold the text, its second text and the label, and whether a record fills them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smartbert_runtime.errors import InputError

# The names that public data sets use, tried in this order when none is given: first text, second text.
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
    """Which columns to read; where `text` is None, text and pair are chosen by KNOWN_COLUMNS."""

    text: str | None = None
    pair: str | None = None
    label: str = LABEL_COLUMN


def check_fields(
    fields: Mapping[str, str], line: int, required: Sequence[str], source: str, unit: str = "line"
) -> None:
    """Raise InputError with the line number when a required field is missing, blank, or not Unicode text."""
    for column in required:
        if not fields.get(column, "").strip():
            raise InputError(f"{source}, {unit} {line}: {column} is empty", hint=f"fill it, or remove the {unit}")
        try:
            fields[column].encode()
        except UnicodeEncodeError as err:  # half of a surrogate pair, which JSON can encode
            raise InputError(f"{source}, {unit} {line}: {column} is not Unicode text", hint="repair it") from err


def check_pairs(trained_on_pairs: bool | None, given: bool, source: str) -> None:
    """InputError for pairs of texts to a model of single ones, and the reverse: it would answer, but meaninglessly.

    trained_on_pairs: None where that is not known; then both are accepted.
    """
    if trained_on_pairs is None or trained_on_pairs == given:
        return
    if given:
        raise InputError(
            f"{source}: pairs of texts, and the model was trained on single ones",
            hint="give one text each; of a file, name its column with --text-column",
        )
    raise InputError(
        f"{source}: single texts, and the model was trained on pairs",
        hint="give the second texts too; of a file, name both columns with --text-column and --pair-column",
    )


def choose_columns(available: Sequence[str], columns: Columns, source: str) -> tuple[str, str | None]:
    """The text column and the pair column (None: no pairs); the hint of the InputError lists the columns."""
    text_column, pair_column = _choose(available, columns, source)
    if text_column == pair_column:
        raise InputError(f"{text_column!r} cannot be both the text and its pair", hint="change --pair-column")
    return text_column, pair_column


def _choose(available: Sequence[str], columns: Columns, source: str) -> tuple[str, str | None]:
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
