"""decisions.py on recorded texts with three or four layers, every decision worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from smartbert.evaluation.decisions import Decisions, Recording, decide
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ConfigError
from tests.smartbert.evaluation.recordings_by_hand import NO_HEAD, RECORDING, RUN, SURE_1, answering


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


def test_first_sure_head_answers() -> None:
    # A is sure at 1; B skips 1, whose head is sure too, and exits at 2; C's head 2 is sure, but its layer was skipped.
    decisions = decide(RECORDING, Policy(exit_threshold=0.5))
    assert _shown(decisions) == [(0, 1, 1), (1, 2, 1), (0, 3, 1)]
    assert decisions.reached_rl.tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert decisions.skips_rl.tolist() == [[False, False, False], [True, False, False], [False, True, True]]


def test_threshold_zero_never_exits() -> None:
    assert _shown(decide(RECORDING, Policy(exit_threshold=0.0))) == [(0, 3, 2), (0, 3, 2), (0, 3, 1)]


def test_no_exit_overrides_threshold() -> None:
    never = decide(RECORDING, Policy(exit_threshold=1.0, no_exit=True))
    assert _shown(never) == _shown(decide(RECORDING, Policy(exit_threshold=0.0)))


def test_no_skip_overrides_threshold() -> None:
    decisions = decide(RECORDING, Policy(skip_threshold=0.0, exit_threshold=0.5, no_skip=True))
    # Nobody skips: B's head 1 is sure of 0, C's head 2 of 1.
    assert _shown(decisions) == [(0, 1, 1), (0, 1, 1), (1, 2, 2)]
    assert not decisions.skips_rl.any()


def test_skip_threshold() -> None:
    # sigmoid(2) = 0.88: skipped at 0.88, run at 0.89.
    assert decide(RECORDING, Policy(skip_threshold=0.88)).skips_rl.sum() == 4
    assert decide(RECORDING, Policy(skip_threshold=0.89)).skips_rl.sum() == 0


def test_layers_without_head_never_answer() -> None:
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
def test_patience(patience: int, exits: list[int]) -> None:
    recording = answering(["ABBB", "AAAA", "ABAB", "AABB", "BAAA"])
    decisions = decide(recording, Policy(rule="patience", patience=patience))
    assert decisions.exit_layer_r.tolist() == exits
    assert decisions.layers_run_r.tolist() == exits
    assert decisions.answers_r.tolist() == [1, 0, 1, 0 if patience == 1 else 1, 0]


def test_patience_restarts_on_disagreement() -> None:
    # AABBC: one agreement on A and one on B are not two in a row.
    assert decide(answering(["AABBC", "AABBB"]), Policy(rule="patience", patience=2)).exit_layer_r.tolist() == [5, 5]
    assert decide(answering(["AABBBC"]), Policy(rule="patience", patience=2)).exit_layer_r.tolist() == [5]


def test_patience_across_skipped_layer() -> None:
    for skipped in ("A", "B"):
        # Heads 1, 2 and 4 are asked: two agreements at layer 4, not three.
        recording = answering([f"AA{skipped}AC"], ["##-##"])
        assert decide(recording, Policy(rule="patience", patience=2)).exit_layer_r.tolist() == [4]
        assert decide(recording, Policy(rule="patience", patience=3)).exit_layer_r.tolist() == [5]


def test_skipped_head_is_not_counted() -> None:
    # AxAB: heads 1 and 3 agree across the skipped layer 2, whether its head would have said A or B.
    for skipped in ("A", "B"):
        recording = answering([f"A{skipped}AB"], ["#-##"])
        decisions = decide(recording, Policy(rule="patience", patience=1))
        assert _shown(decisions) == [(0, 3, 2)]
    # And where the layer is run, agreement comes at layer 2, or is broken there.
    assert decide(answering(["AAAB"]), Policy(rule="patience", patience=1)).exit_layer_r.tolist() == [2]
    assert decide(answering(["ABAB"]), Policy(rule="patience", patience=1)).exit_layer_r.tolist() == [4]


def test_patience_with_no_skip() -> None:
    recording = answering(["AAAB"], ["#-##"])
    assert decide(recording, Policy(rule="patience", patience=1, no_skip=True)).exit_layer_r.tolist() == [2]


def test_skipped_last_layer_answers() -> None:
    recording = answering(["ABC", "AAC"], ["##-", "#--"])
    assert _shown(decide(recording, Policy(rule="patience", patience=1))) == [(2, 3, 2), (2, 3, 1)]
    assert _shown(decide(recording, Policy(exit_threshold=0.0))) == [(2, 3, 2), (2, 3, 1)]


def test_max_layers() -> None:
    # One layer run: A at 1, B at 2 (it skips 1), C at 1; each by the head of that layer.
    assert _shown(decide(RECORDING, Policy(max_layers=1))) == [(0, 1, 1), (1, 2, 1), (1, 1, 1)]
    assert _shown(decide(RECORDING, Policy(max_layers=1, no_exit=True))) == [(0, 1, 1), (1, 2, 1), (1, 1, 1)]


def test_threshold_per_exit() -> None:
    # B's head 2 has entropy 0.469: below 0.5, not below 0.4. A's head 1 is sure, and may not answer at threshold 0.
    assert _shown(decide(RECORDING, Policy(exit_thresholds=(0.0, 0.5, 0.0)))) == [(0, 3, 2), (1, 2, 1), (0, 3, 1)]
    assert _shown(decide(RECORDING, Policy(exit_thresholds=(0.0, 0.4, 0.0)))) == [(0, 3, 2), (0, 3, 2), (0, 3, 1)]


def test_max_probability_rule() -> None:
    # Head 2 of B: p 0.9, so a doubt of 0.2.
    assert _shown(decide(RECORDING, Policy(rule="max-probability", exit_threshold=0.21)))[1] == (1, 2, 1)
    assert _shown(decide(RECORDING, Policy(rule="max-probability", exit_threshold=0.19)))[1] == (0, 3, 2)


def test_confident_patience_rule() -> None:
    # Two sure heads in a row that ran: A at layers 1 and 3, no other text.
    decisions = decide(RECORDING, Policy(rule="confident-patience", patience=2, exit_threshold=0.1))
    assert decisions.exit_layer_r.tolist() == [3, 3, 3]
    unskipped = decide(RECORDING, Policy(rule="confident-patience", patience=2, exit_threshold=0.1, no_skip=True))
    assert unskipped.exit_layer_r.tolist() == [2, 3, 3]


def test_deadline_is_refused() -> None:
    with pytest.raises(ConfigError, match="a deadline cannot be applied to recorded outputs"):
        decide(RECORDING, Policy(deadline_ms=5.0))
