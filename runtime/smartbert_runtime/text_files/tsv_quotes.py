"""Quotes in tsv: the format has none (GLUE's files hold lone ones), but csv writers put them around some cells.

Undone is what only such a writer can have written: cells with doubled quotes inside, and every cell of a file whose
header is quoted too.
"""

from __future__ import annotations

from collections.abc import Sequence


def is_quoted(cell: str) -> bool:
    """Whether a cell stands in quotes, those inside it doubled."""
    return len(cell) >= 2 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")


def unquote_all(cells: Sequence[str]) -> list[str]:
    """The cells without the quotes around them."""
    return [_unquote(cell) if is_quoted(cell) else cell for cell in cells]


def unquote_doubled(cells: Sequence[str]) -> list[str]:
    """The cells, those without quotes around them that hold doubled ones."""
    return [_unquote(cell) if '""' in cell[1:-1] and is_quoted(cell) else cell for cell in cells]


def _unquote(cell: str) -> str:
    return cell[1:-1].replace('""', '"')
