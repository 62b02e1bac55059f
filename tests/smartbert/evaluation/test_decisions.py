"""decisions.py on recorded texts with three or four layers, every decision worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from smartbert.evaluation.decisions import Decisions, Recording, decide, decide_by_patience
from smartbert_runtime.decisions.policy import Policy
from tests.smartbert.evaluation.recordings import NO_HEAD, RECORDING, RUN, SURE_1, answering


def _shown(decisions: Decisions) -> list[tuple[int, int, int]]:
    """(answer, exit layer, layers run) of each text."""
    return list(
        zip(
            decisions.answers_r.tolist(),
            decisions.exit_layer_r.tolist(),
            decisions.layers_run_r.tolist(),
            strict=True,
        )
    )


def test_the_first_sure_head_of_a_layer_that_ran_answers() -> None:
    # A is sure at 1; B skips 1, whose head is sure too, and exits at 2; C's head 2 is sure, but its layer was skipped.
    decisions = decide(RECORDING, Policy(exit_threshold=0.5))
    assert _shown(decisions) == [(0, 1, 1), (1, 2, 1), (0, 3, 1)]
    assert decisions.reached_rl.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert decisions.skips_rl.tolist() == [[False, True, False], [True, False, False], [False, True, True]]


def test_a_threshold_of_0_never_exits() -> None:
    assert _shown(decide(RECORDING, Policy(exit_threshold=0.0))) == [(0, 3, 2), (0, 3, 2), (0, 3, 1)]


def test_no_exit_stands_above_the_exit_threshold() -> None:
    never = decide(RECORDING, Policy(exit_threshold=1.0, no_exit=True))
    assert _shown(never) == _shown(decide(RECORDING, Policy(exit_threshold=0.0)))


def test_no_skip_stands_above_the_skip_threshold() -> None:
    decisions = decide(RECORDING, Policy(skip_threshold=0.0, exit_threshold=0.5, no_skip=True))
    # Nobody skips: B's head 1 is sure of 0, C's head 2 of 1.
    assert _shown(decisions) == [(0, 1, 1), (0, 1, 1), (1, 2, 2)]
    assert not decisions.skips_rl.any()


def test_the_skip_threshold_decides_who_skips() -> None:
    # sigmoid(2) = 0.88: skipped at 0.88, run at 0.89.
    assert decide(RECORDING, Policy(skip_threshold=0.88)).skips_rl.sum() == 4
    assert decide(RECORDING, Policy(skip_threshold=0.89)).skips_rl.sum() == 0


def test_layers_without_a_head_never_answer() -> None:
    recording = Recording(
        skip_logits_rl=np.full((1, 3), RUN, dtype=np.float32),
        logits_rlc=np.array([[NO_HEAD, NO_HEAD, SURE_1]], dtype=np.float32),
        label_ids_r=np.array([1]),
    )
    assert _shown(decide(recording, Policy(exit_threshold=1.0))) == [(1, 3, 3)]


@pytest.mark.parametrize(
    ("patience", "exits"),
    # The heads' answers:  ABBB     AAAA     ABAB     AABB     BAAA
    [
        (1, [3, 2, 4, 2, 3]),  # ABAB never agrees: the last head answers
        (2, [4, 3, 4, 4, 4]),  # AABB agrees twice, but not in a row of three
        (3, [4, 4, 4, 4, 4]),  # AAAA is the only one whose patience ends, at the last head, which answers anyhow
    ],
)
def test_patience_exits_at_the_head_that_agrees_often_enough_in_a_row(patience: int, exits: list[int]) -> None:
    recording = answering(["ABBB", "AAAA", "ABAB", "AABB", "BAAA"])
    decisions = decide_by_patience(recording, Policy(), patience)
    assert decisions.exit_layer_r.tolist() == exits
    assert decisions.layers_run_r.tolist() == exits
    assert decisions.answers_r.tolist() == [1, 0, 1, 0 if patience == 1 else 1, 0]


def test_agreement_begins_anew_with_another_answer() -> None:
    # AABBC: one agreement on A and one on B are not two in a row.
    assert decide_by_patience(answering(["AABBC", "AABBB"]), Policy(), 2).exit_layer_r.tolist() == [5, 5]
    assert decide_by_patience(answering(["AABBBC"]), Policy(), 2).exit_layer_r.tolist() == [5]


def test_a_skipped_layer_does_not_break_a_row_of_answers_and_does_not_lengthen_it() -> None:
    for skipped in ("A", "B"):
        # Heads 1, 2 and 4 are asked: two agreements at layer 4, not three.
        recording = answering([f"AA{skipped}AC"], ["##-##"])
        assert decide_by_patience(recording, Policy(), 2).exit_layer_r.tolist() == [4]
        assert decide_by_patience(recording, Policy(), 3).exit_layer_r.tolist() == [5]


def test_a_skipped_layers_head_neither_agrees_nor_disagrees() -> None:
    # AxAB: heads 1 and 3 agree across the skipped layer 2, whether its head would have said A or B.
    for skipped in ("A", "B"):
        recording = answering([f"A{skipped}AB"], ["#-##"])
        decisions = decide_by_patience(recording, Policy(), 1)
        assert _shown(decisions) == [(0, 3, 2)]
    # And where the layer is run, agreement comes at layer 2, or is broken there.
    assert decide_by_patience(answering(["AAAB"]), Policy(), 1).exit_layer_r.tolist() == [2]
    assert decide_by_patience(answering(["ABAB"]), Policy(), 1).exit_layer_r.tolist() == [4]


def test_patience_follows_no_skip_too() -> None:
    recording = answering(["AAAB"], ["#-##"])
    assert decide_by_patience(recording, Policy(no_skip=True), 1).exit_layer_r.tolist() == [2]


def test_a_skipped_last_layer_answers_with_its_head() -> None:
    recording = answering(["ABC", "AAC"], ["##-", "#--"])
    assert _shown(decide_by_patience(recording, Policy(), 1)) == [(2, 3, 2), (2, 3, 1)]
    assert _shown(decide(recording, Policy(exit_threshold=0.0))) == [(2, 3, 2), (2, 3, 1)]
