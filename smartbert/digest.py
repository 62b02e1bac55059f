"""Digests of an encoder or of any files in a folder: the same for the same content, wherever it is stored."""

from __future__ import annotations

import hashlib
from pathlib import Path

ENCODER_FILES = ("config.json", "model.safetensors", "tokenizer.json")


def digest_of(folder: Path, names: tuple[str, ...]) -> str:
    """One digest over those of these files that the folder has."""
    digest = hashlib.sha256()
    for name in names:
        if (folder / name).is_file():
            digest.update(name.encode() + (folder / name).read_bytes())
    return digest.hexdigest()[:16]


def encoder_digest(name_or_dir: str) -> str:
    """The digest of a local encoder's config, weights and tokenizer; a hub name is returned unchanged."""
    return digest_of(Path(name_or_dir), ENCODER_FILES) if Path(name_or_dir).is_dir() else name_or_dir
