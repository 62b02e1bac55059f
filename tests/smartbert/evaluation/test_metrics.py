"""metrics.py against figures worked out by hand, and against each measure's other definition on random answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from smartbert.evaluation.metrics import METRICS, Quality, quality


def _quality(answers: list[int], labels: list[int], classes: int) -> Quality:
    return quality(np.array(answers), np.array(labels), classes)


def test_two_classes_by_hand() -> None:
    # Of label 1: 1 right, 1 wrongly given, 0 missed: F1 = 2 / (2 + 1 + 0).
    # Matthews: (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN)) = (1 x 2 - 0) / sqrt(2 x 1 x 3 x 2).
    found = _quality([1, 1, 0, 0], [1, 0, 0, 0], 2)
    assert found.accuracy == 0.75
    assert found.f1 == pytest.approx(2 / 3)
    assert found.matthews == pytest.approx(2 / math.sqrt(12))


def test_f1_of_two_classes() -> None:
    # Labels swapped: F1 of what was label 0, 2 right of 2 given and 3 there, is 4 / 5; the others stay.
    found = _quality([0, 0, 1, 1], [0, 1, 1, 1], 2)
    assert found.f1 == pytest.approx(4 / 5)
    assert found.accuracy == 0.75
    assert found.matthews == pytest.approx(2 / math.sqrt(12))


def test_three_classes_by_hand() -> None:
    # Confusion (label, answer): [[2, 0, 0], [1, 1, 0], [0, 1, 1]].
    # F1: 4 / (2 + 3) = 0.8;  2 / (2 + 2) = 0.5;  2 / (2 + 1) = 0.667.
    # Matthews: (4 x 6 - (2x3 + 2x2 + 2x1)) / sqrt((36 - 14)(36 - 12)) = 12 / sqrt(528).
    found = _quality([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2], 3)
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.f1 == pytest.approx((0.8 + 0.5 + 2 / 3) / 3)
    assert found.matthews == pytest.approx(12 / math.sqrt(528))


def test_all_right_and_all_wrong() -> None:
    assert _quality([0, 1, 1], [0, 1, 1], 2) == Quality(accuracy=1.0, f1=1.0, matthews=1.0)
    assert _quality([1, 0, 0], [0, 1, 1], 2) == Quality(accuracy=0.0, f1=0.0, matthews=-1.0)


def test_absent_class() -> None:
    three, five = _quality([0, 1, 2, 2], [0, 1, 2, 1], 3), _quality([0, 1, 2, 2], [0, 1, 2, 1], 5)
    assert five == three
    assert three.f1 == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


def test_class_only_predicted() -> None:
    # Class 2 is never right: F1 1, 0.667 and 0.
    assert _quality([0, 1, 2], [0, 1, 1], 3).f1 == pytest.approx((1 + 2 / 3 + 0) / 3)


@pytest.mark.parametrize(
    ("answers", "labels", "expected"),
    [
        ([0, 0, 0], [0, 0, 0], Quality(accuracy=1.0, f1=0.0, matthews=0.0)),  # right, but label 1 is never met
        ([1, 1, 1], [1, 1, 1], Quality(accuracy=1.0, f1=1.0, matthews=0.0)),
        ([1, 1, 1, 1], [1, 1, 1, 0], Quality(accuracy=0.75, f1=6 / 7, matthews=0.0)),  # guessing the common label
        ([1, 1, 0, 1], [1, 1, 1, 1], Quality(accuracy=0.75, f1=6 / 7, matthews=0.0)),  # one label only
        ([1, 1], [0, 0], Quality(accuracy=0.0, f1=0.0, matthews=0.0)),
    ],
)
def test_one_label_only(answers: list[int], labels: list[int], expected: Quality) -> None:
    # Warnings are errors: a 0 / 0 anywhere would fail.
    found = _quality(answers, labels, 2)
    assert (found.accuracy, found.matthews) == (expected.accuracy, expected.matthews)
    assert found.f1 == pytest.approx(expected.f1)


def _random(classes: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Answers that are right about half of the time, labels unevenly spread."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.4, 200) - 1, classes - 1)
    return np.where(rng.random(200) < 0.5, labels, rng.integers(0, classes, 200)), labels


@pytest.mark.parametrize("seed", range(3))
def test_matthews_is_pearson(seed: int) -> None:
    answers, labels = _random(2, seed)
    expected = np.corrcoef(answers, labels)[0, 1]
    assert quality(answers, labels, 2).matthews == pytest.approx(expected)
    assert 0.2 < expected < 0.9


@pytest.mark.parametrize("seed", range(3))
def test_matthews_of_indicators(seed: int) -> None:
    # Gorodkin (2004): covariances of the one-hot matrices, summed over classes.
    answers, labels = _random(4, seed)
    given, wanted = (np.eye(4)[ids] - np.eye(4)[ids].mean(axis=0) for ids in (answers, labels))
    expected = (given * wanted).sum() / math.sqrt((given**2).sum() * (wanted**2).sum())
    assert quality(answers, labels, 4).matthews == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_f1_is_harmonic_mean(seed: int) -> None:
    answers, labels = _random(3, seed)
    scores = []
    for label in range(3):
        precision = float((labels[answers == label] == label).mean())
        recall = float((answers[labels == label] == label).mean())
        scores.append(2 / (1 / precision + 1 / recall))
    assert quality(answers, labels, 3).f1 == pytest.approx(sum(scores) / 3)


@pytest.mark.parametrize("metric", METRICS)
def test_metrics_are_fields(metric: str) -> None:
    right, wrong = _quality([0, 1, 1, 0], [0, 1, 1, 0], 2), _quality([0, 1, 0, 0], [0, 1, 1, 0], 2)
    assert getattr(right, metric) == 1.0 > getattr(wrong, metric)
