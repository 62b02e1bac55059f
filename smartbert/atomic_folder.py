"""A folder written whole or not at all: built beside its target and renamed when it is complete."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smartbert_runtime.errors import InputError

# By these a folder of ours is recognized: --overwrite must not delete anybody's home.
OWN_FILES = ("config.json", "manifest.json")


def check_target(target: Path, *, overwrite: bool) -> None:
    """InputError where `target` exists and may not be replaced, or where its parent cannot hold it."""
    try:
        target.exists()
    except OSError as err:  # a name that is too long, a folder that may not be looked into
        raise InputError(f"{target} cannot be written: {err.strerror}", hint="name another folder") from err
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file, not a folder", hint="name another folder")
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists already", hint="name another folder, or give --overwrite to replace it")
    if target.exists() and any(target.iterdir()) and not any((target / name).is_file() for name in OWN_FILES):
        raise InputError(
            f"{target} is neither a checkpoint nor a package: it will not be replaced", hint="name another folder"
        )
    above = next(parent for parent in target.absolute().parents if parent.exists())
    if not above.is_dir():
        raise InputError(f"{target} cannot be written: {above} is a file", hint="name another folder")


@contextmanager
def atomic_folder(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """An empty folder beside `target` that replaces it at the end; after any error `target` is as it was."""
    target = target.resolve()
    check_target(target, overwrite=overwrite)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as err:
        raise InputError(f"{target} cannot be written: {err.strerror}", hint="check the path and its rights") from err
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp makes it private
        check_target(target, overwrite=overwrite)  # once more: another program may have put something there
        _replace(staging, target)
    except OSError as err:
        if err.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(
            f"no space is left on the disk of {target}", hint="free some, or name a folder on another disk"
        ) from err
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    retired = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
    target.rename(retired / "old")
    try:
        staging.rename(target)
    except BaseException:
        (retired / "old").rename(target)
        retired.rmdir()
        raise
    shutil.rmtree(retired, ignore_errors=True)
