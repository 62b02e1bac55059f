"""atomic_folder.py: a folder appears whole or not at all, and what stood there before survives every failure."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from smartbert.atomic_folder import atomic_folder, check_target
from smartbert_runtime.errors import InputError


def _tree(folder: Path) -> dict[str, str]:
    """Every file below with its content, every folder with an empty one, hidden ones too."""
    return {
        str(item.relative_to(folder)): item.read_text(encoding="utf-8") if item.is_file() else ""
        for item in sorted(folder.rglob("*"))
    }


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A target that exists already, with a file in it by which it is recognized as ours."""
    target = tmp_path / "out"
    target.mkdir()
    (target / "config.json").write_text("kept", encoding="utf-8")
    return target


def test_folder_appears_when_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    with atomic_folder(target, overwrite=False) as staging:
        (staging / "a.txt").write_text("whole", encoding="utf-8")
        assert staging.parent == target.parent  # so that the last step is a rename
        assert not target.exists()
    assert _tree(tmp_path) == {"deep": "", "deep/out": "", "deep/out/a.txt": "whole"}
    assert stat.S_IMODE(target.stat().st_mode) == 0o755  # others may read it


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_error_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_folder(tmp_path / "out", overwrite=False) as staging:
        (staging / "half.txt").write_text("half", encoding="utf-8")
        raise error("in the middle")
    assert _tree(tmp_path) == {}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_error_leaves_old_folder(old: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), atomic_folder(old, overwrite=True) as staging:
        (staging / "half.txt").write_text("half", encoding="utf-8")
        raise error("in the middle")
    assert _tree(old.parent) == {"out": "", "out/config.json": "kept"}


def test_overwrite_replaces_whole_folder(old: Path) -> None:
    with atomic_folder(old, overwrite=True) as staging:
        (staging / "new.txt").write_text("new", encoding="utf-8")
        assert _tree(old) == {"config.json": "kept"}  # until the very end
    assert _tree(old.parent) == {"out": "", "out/new.txt": "new"}


def test_existing_folder_is_refused(old: Path) -> None:
    ran = False
    with pytest.raises(InputError, match="out exists already") as caught, atomic_folder(old, overwrite=False):
        ran = True
    assert not ran
    assert "--overwrite" in caught.value.hint
    assert _tree(old.parent) == {"out": "", "out/config.json": "kept"}


def test_folder_that_appears_meanwhile(tmp_path: Path) -> None:
    # Two runs with one target: the second to finish must not destroy what the first wrote.
    target = tmp_path / "out"
    with pytest.raises(InputError, match="exists already"), atomic_folder(target, overwrite=False) as staging:
        (staging / "second.txt").write_text("second", encoding="utf-8")
        target.mkdir()
        (target / "first.txt").write_text("first", encoding="utf-8")
    assert _tree(tmp_path) == {"out": "", "out/first.txt": "first"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_file_in_the_way(tmp_path: Path, overwrite: bool) -> None:
    target = tmp_path / "out"
    target.write_text("a file", encoding="utf-8")
    with pytest.raises(InputError, match=r"out (exists already|is a file)") as caught:  # noqa: SIM117
        with atomic_folder(target, overwrite=overwrite):
            pass
    assert "--overwrite" not in caught.value.hint  # it would not help: a file is never replaced
    assert _tree(tmp_path) == {"out": "a file"}


def test_parent_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    target = tmp_path / "file" / "out"
    with pytest.raises(InputError, match="out cannot be written"), atomic_folder(target, overwrite=False):
        pass
    with pytest.raises(InputError, match="file"):
        check_target(target, overwrite=False)


def test_check_target_accepts_writable(old: Path) -> None:
    check_target(old, overwrite=True)
    check_target(old.parent / "new" / "deeper", overwrite=False)
    assert _tree(old.parent) == {"out": "", "out/config.json": "kept"}  # it only looks


def test_foreign_folder_is_kept(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.tsv").write_text("kept", encoding="utf-8")
    with pytest.raises(InputError, match="neither a checkpoint nor a package"):
        check_target(tmp_path / "project", overwrite=True)
    assert (tmp_path / "project" / "train.tsv").read_text(encoding="utf-8") == "kept"


def test_file_name_too_long(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written: File name too long"):
        check_target(tmp_path / ("x" * 300), overwrite=False)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(old: Path, number: int) -> None:
    with (
        pytest.raises(InputError, match="no space is left on the disk") as caught,
        atomic_folder(old, overwrite=True) as staging,
    ):
        (staging / "config.json").write_text("half", encoding="utf-8")
        raise OSError(number, os.strerror(number))
    assert "another disk" in caught.value.hint
    assert _tree(old.parent) == {"out": "", "out/config.json": "kept"}


def test_other_disk_fault(old: Path) -> None:
    with pytest.raises(OSError, match="Input/output"), atomic_folder(old, overwrite=True):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
