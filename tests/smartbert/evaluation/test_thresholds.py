"""thresholds.py: how far exits may go before the texts kept back do not vouch for them any more."""

from __future__ import annotations

import pytest

from smartbert.evaluation.curves import summarize
from smartbert.evaluation.thresholds import choose_exit_threshold
from smartbert_runtime.decisions.policy import Policy
from tests.smartbert.evaluation.recordings_by_hand import RECORDING, changing


@pytest.mark.parametrize(
    ("changed", "texts", "threshold"),
    # P(Binomial(505, 0.01) <= 1) = 0.99^505 (1 + 505 / 99) = 0.0381, and 0.1193 for <= 2.
    # P(Binomial(299, 0.01) <= 0) = 0.99^299 = 0.0495; the other way round 0.99^298 = 0.0500 is just above 5 %.
    [(1, 505, 1.0), (2, 505, 0.0), (0, 299, 1.0), (1, 299, 0.0)],
)
def test_certified_threshold(changed: int, texts: int, threshold: float) -> None:
    choice = choose_exit_threshold(changing(changed, texts), 0.5, max_disagreement=0.01, confidence=0.95)
    assert choice.certain
    assert choice.exit_threshold == threshold
    assert (choice.changed, choice.texts) == (changed if threshold else 0, texts)


def test_too_few_texts() -> None:
    # 0.99^298 = 0.05003 > 0.05: not even "no answer changed" is enough.
    choice = choose_exit_threshold(changing(0, 298), 0.5, max_disagreement=0.01, confidence=0.95)
    assert (choice.exit_threshold, choice.changed, choice.certain) == (1.0, 0, False)
    choice = choose_exit_threshold(changing(1, 298), 0.5, max_disagreement=0.01, confidence=0.95)
    assert (choice.exit_threshold, choice.changed, choice.certain) == (0.0, 0, False)


def test_choice_stops_at_first_failure() -> None:
    # RECORDING: full depth says 0, 0, 0; from 0.47 on B's answer becomes 1. Three texts vouch for nothing.
    choice = choose_exit_threshold(RECORDING, 0.5, max_disagreement=0.01, confidence=0.95)
    assert (choice.exit_threshold, choice.changed, choice.certain) == (0.46, 0, False)


def test_choice_counts_changed_answers() -> None:
    # The exit at 0.47 makes accuracy better (2/3 -> 1), and still counts as a change.
    better = summarize(RECORDING, Policy(exit_threshold=0.47), ()).accuracy
    assert better == 1.0
    choice = choose_exit_threshold(RECORDING, 0.5, max_disagreement=0.0, confidence=0.95)
    assert choice.exit_threshold == 0.46


def test_any_disagreement_allowed() -> None:
    choice = choose_exit_threshold(changing(50, 60), 0.5, max_disagreement=1.0, confidence=0.95)
    assert (choice.exit_threshold, choice.changed) == (1.0, 50)
