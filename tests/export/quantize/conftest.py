"""The tiny model's fp32 parts, cut once for all tests of this folder."""

from __future__ import annotations

import pytest

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.graphs.cut import CutParts, cut_parts


@pytest.fixture(scope="session")
def cut(tmp_path_factory: pytest.TempPathFactory, model: SmartBertForSequenceClassification) -> CutParts:
    """Every part of every layout; read only."""
    return cut_parts(model, tmp_path_factory.mktemp("cut"), ("separate", "fused", "single"))
