"""Write files of the package folder, and return each one's manifest entry: path, sha256, size."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from smartbert_runtime.package.manifest import FileEntry


def write_file(staging: Path, file: str, content: bytes) -> FileEntry:
    """Write one file of the package, and return its entry."""
    (staging / file).write_bytes(content)
    return FileEntry(file=file, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))


def copy_file(staging: Path, file: str, source: Path) -> FileEntry:
    """As `write_file`, with the content of another file, which is never in memory as a whole."""
    shutil.copyfile(source, staging / file)
    return FileEntry(file=file, sha256=sha256_of(source), bytes=source.stat().st_size)


def sha256_of(*files: Path) -> str:
    """One digest of the concatenated files, read piece by piece."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
    return digest.hexdigest()
