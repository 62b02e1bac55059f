"""Files of the package folder, each with the entry that vouches for it."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from smartbert_runtime.package.manifest import FileEntry


def write_file(staging: Path, file: str, content: bytes) -> FileEntry:
    """Write one file of the package; the entry that vouches for it."""
    (staging / file).write_bytes(content)
    return FileEntry(file=file, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def copy_file(staging: Path, file: str, source: Path) -> FileEntry:
    """As `write_file`, from a file that is never held in memory."""
    shutil.copyfile(source, staging / file)
    return FileEntry(file=file, sha256=sha256_of(source), bytes=source.stat().st_size)


def sha256_of(*files: Path) -> str:
    """One digest of the files one after another, read piece by piece."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
