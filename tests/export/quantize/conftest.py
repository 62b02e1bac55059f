"""The tiny model's fp32 parts, cut once for all tests of this folder, and the ranges of its activations."""

from __future__ import annotations

import pytest

from smartbert.activations.ranges import ActivationRanges
from smartbert.activations.record import record_ranges
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.graphs.cut import CutParts, cut_parts
from smartbert_runtime import SmartBert
from smartbert_runtime.decisions.policy import Policy
from tests.conftest import SENTENCES


@pytest.fixture(scope="session")
def cut(tmp_path_factory: pytest.TempPathFactory, model: SmartBertForSequenceClassification) -> CutParts:
    """Every part of every layout; read only."""
    return cut_parts(model, tmp_path_factory.mktemp("cut"), ("separate", "fused", "single"))


@pytest.fixture(scope="session")
def ranges(model: SmartBertForSequenceClassification, classifier: SmartBert) -> ActivationRanges:
    """Recorded on all sentences."""
    return record_ranges(model, classifier.tokenizer.encode(list(SENTENCES)), Policy(exit_threshold=0.5))
