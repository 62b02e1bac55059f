"""Tells an encoder or a set of texts from another by content, wherever it lies."""

from __future__ import annotations

import hashlib
from pathlib import Path

ENCODER_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def digest_of(folder: Path, names: tuple[str, ...]) -> str:
    """One digest over these files of a folder, those that are there."""
    digest = hashlib.sha256()
    for name in names:
        if (folder / name).is_file():
            digest.update(name.encode() + (folder / name).read_bytes())
    return digest.hexdigest()[:16]


def encoder_digest(name_or_dir: str) -> str:
    """The digest of a local encoder's config, weights and tokenizer; a hub name as it is."""
    return digest_of(Path(name_or_dir), ENCODER_FILES) if Path(name_or_dir).is_dir() else name_or_dir
