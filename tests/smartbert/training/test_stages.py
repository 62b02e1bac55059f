"""stages.py: the weights that make a rare label count. Whole runs are in test_train.py."""

from __future__ import annotations

import pytest

from smartbert.training.stages import balanced_weights


def test_balanced_weights() -> None:
    assert balanced_weights([0, 0, 0, 1], 2) == pytest.approx((4 / 6, 4 / 2))


def test_balanced_weights_average_to_one() -> None:
    label_ids = [0, 1, 1, 2, 2, 2, 2]
    weights = balanced_weights(label_ids, 3)
    assert sum(weights[label] for label in label_ids) / len(label_ids) == pytest.approx(1.0)


def test_unused_label_weighs_nothing() -> None:
    assert balanced_weights([0, 0], 2) == (0.5, 0.0)
