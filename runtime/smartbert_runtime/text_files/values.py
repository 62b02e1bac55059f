"""One cell of a file as text, whatever kind of value holds it; labels spelt in one way and sorted."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable
from decimal import Decimal

# What libraries write into a text cell for a value that is missing. The second group is also a word, and missing only
# where all other labels of the file are numbers or booleans.
MISSING = frozenset({"nan", "NaN", "<NA>", "NaT"})
MISSING_NUMBERS = frozenset({"None", "none", "null", "NULL", "NA", "N/A", "#N/A", "n/a"})
# A number as libraries write it; "007" and "1e3" are codes.
_NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+([eE][+-]?\d+)?|[eE][+-]\d+)?")


def as_text(value: object) -> str | None:
    """A value as text: of a missing one (None, NaN) the empty text; None for lists and objects, which are no cells."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, Decimal)):
        return str(value)
    return value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else None


def canonical_label(label: str) -> str:
    """One spelling for labels that are equal numbers (1, 1.0) or booleans (True, TRUE); any other as it is."""
    stripped = label.strip()
    if stripped.lower() in ("true", "false"):
        return stripped.lower()
    number = _number(stripped)
    if number is None:
        return label
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)


def label_numbers(labels: Iterable[str]) -> dict[str, int]:
    """The place of each label, under its canonical spelling too: a model may have been trained with another."""
    places = {label: number for number, label in enumerate(labels)}
    return {canonical_label(label): number for label, number in places.items()} | places


def sorted_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Each label once: numbers by their size where all are numbers, otherwise by their characters."""
    unique = set(labels)
    if all(_number(label) is not None for label in unique):
        return tuple(sorted(unique, key=float))
    return tuple(sorted(unique))


def missing_spellings(labels: Iterable[str]) -> frozenset[str]:
    """The labels among these that stand for a value that is missing."""
    unique = set(labels)
    others = unique - MISSING - MISSING_NUMBERS
    numeric = bool(others) and all(_number(label) is not None or label in ("true", "false") for label in others)
    return frozenset(unique & (MISSING | MISSING_NUMBERS if numeric else MISSING))


def _number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text) and math.isfinite(float(text)) else None
