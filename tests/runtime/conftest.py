"""The tiny model in other shapes: every layout in one folder, and graphs of one fixed shape."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.runtime.packages import export_fixed, export_fixed_single, export_layouts


@pytest.fixture(scope="session")
def layouts_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """Layouts separate, fused and single in fp32 and int8; read only (see `layouts_copy`)."""
    return export_layouts(tmp_path_factory.getbasetemp(), checkpoint_dir)


@pytest.fixture
def layouts_copy(layouts_dir: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(layouts_dir, tmp_path / "out"))


@pytest.fixture(scope="session")
def fixed_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """Layouts separate and fused for batches of 2 texts of 12 tokens; read only."""
    return export_fixed(tmp_path_factory.getbasetemp(), checkpoint_dir)


@pytest.fixture(scope="session")
def fixed_single_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """Layout single for one text of 12 tokens; read only."""
    return export_fixed_single(tmp_path_factory.getbasetemp(), checkpoint_dir)
