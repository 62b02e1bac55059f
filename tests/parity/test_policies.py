"""Policies decide as the second PyTorch oracle does: thresholds, no_skip, no_exit, max_layers, and combinations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_runtime import Policy, SmartBert
from tests.conftest import SENTENCES, make_tokenizer
from tests.parity.paper_oracle import PaperAnswer, paper_answer

POLICIES: list[dict[str, Any]] = [
    {"exit_threshold": 0.0},
    {"exit_threshold": 0.2},
    {"exit_threshold": 0.9},
    {"exit_threshold": 1.0},
    {"skip_threshold": 0.3},
    {"skip_threshold": 0.8, "exit_threshold": 0.7},
    {"no_skip": True},
    {"no_exit": True},
    {"no_skip": True, "no_exit": True},
    {"max_layers": 1},
    {"max_layers": 2},
    {"max_layers": 4},
    {"max_layers": 2, "no_exit": True},
    {"max_layers": 3, "no_skip": True},
    {"max_layers": 1, "no_skip": True, "no_exit": True},
    {"max_layers": 2, "exit_threshold": 0.9, "skip_threshold": 0.4},
]


def run_pytorch(model: SmartBertForSequenceClassification, settings: dict[str, Any]) -> list[PaperAnswer]:
    encoded = make_tokenizer()(list(SENTENCES), truncation=True, max_length=24)
    return [
        paper_answer(model, ids, types, **settings)
        for ids, types in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True)
    ]


@pytest.mark.parametrize("batch_size", [1, 24])
@pytest.mark.parametrize("settings", POLICIES, ids=lambda settings: "-".join(f"{k}={v}" for k, v in settings.items()))
def test_policy_matches_pytorch(
    classifier: SmartBert, model: SmartBertForSequenceClassification, settings: dict[str, Any], batch_size: int
) -> None:
    expected = run_pytorch(model, settings)
    predictions = classifier.classify(
        SENTENCES, policy=Policy(**{"exit_threshold": 0.5, **settings}), batch_size=batch_size
    )
    clear = [row for row, answer in enumerate(expected) if answer.margin > 1e-4]
    assert len(clear) >= 23
    for row in clear:
        wanted, got = expected[row], predictions[row]
        assert (got.layers_run, got.layers_skipped, got.exit_layer) == (
            wanted.layers_run,
            wanted.layers_skipped,
            wanted.exit_layer,
        ), SENTENCES[row]
        np.testing.assert_allclose(got.trace.logits_c, wanted.logits_c, atol=1e-4)


def test_full_depth_preset(classifier: SmartBert) -> None:
    for prediction in classifier.classify(SENTENCES, policy=classifier.policy("full-depth")):
        assert prediction.layers_run == (1, 2, 3, 4)
        assert prediction.layers_skipped == () and prediction.exit_layer == 4
        assert np.isnan(prediction.trace.skip_logit_l).all() and np.isnan(prediction.trace.uncertainty_l).all()


def test_max_layers_counts_layers_run(classifier: SmartBert) -> None:
    predictions = classifier.classify(SENTENCES, policy=Policy(no_exit=True, max_layers=1))
    assert all(len(prediction.layers_run) == 1 for prediction in predictions)
    assert all(prediction.exit_layer == prediction.layers_run[0] for prediction in predictions)
    assert {prediction.exit_layer for prediction in predictions} > {1}, "some texts skip the first layer"
    assert all(prediction.layers_skipped == tuple(range(1, prediction.exit_layer)) for prediction in predictions)
