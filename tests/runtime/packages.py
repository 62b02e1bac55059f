"""Package folders as plain JSON and bytes, for tests that damage them (see tests/helpers.py for edits that fit)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from smartbert_runtime.manifest import MANIFEST_FILE

Document = dict[str, Any]


def read_manifest(folder: Path) -> Document:
    """manifest.json as plain JSON."""
    document: Document = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    return document


def first_component(document: Document) -> Document:
    """The first part's entry."""
    component: Document = document["components"][0]
    return component


def first_file(document: Document) -> Document:
    """The first part's file entry: file, sha256, bytes."""
    entry: Document = next(iter(first_component(document)["files"].values()))
    return entry


def flip_byte(file: Path, place: int) -> None:
    """Change one byte and keep the size; doing it twice changes nothing."""
    content = bytearray(file.read_bytes())
    content[place] ^= 0xFF
    file.write_bytes(bytes(content))
