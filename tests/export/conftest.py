"""What the export tests share: one folder with every layout in every precision of the tiny model, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_export.parts.signatures import LAYOUTS
from smartbert_export.quantize.weights import PRECISIONS

EVERY_VARIANT = ExportOptions(graphs=GraphOptions(layouts=LAYOUTS, precisions=PRECISIONS))


@pytest.fixture(scope="session")
def variants_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """Nine variants in one folder, their weights shared; read only."""
    folder = tmp_path_factory.mktemp("variants") / "out"
    export_package(checkpoint_dir, folder, EVERY_VARIANT)
    return folder
