"""engine.stopwatch: every call of a part is recorded once and belongs to the texts that took part in it."""

from __future__ import annotations

import pytest

from smartbert_runtime import Policy, SmartBert
from smartbert_runtime.trace import TOKENIZER
from tests.conftest import LAYERS, SENTENCES

POLICY = Policy(exit_threshold=0.5)


@pytest.mark.parametrize("batch_size", [1, 24])
def test_runs_are_parts_needed(classifier: SmartBert, batch_size: int) -> None:
    for answer in classifier.classify(SENTENCES, policy=POLICY, batch_size=batch_size):
        names = [run.part for run in answer.trace.part_runs()]
        assert names[:2] == [TOKENIZER, "embeddings"]
        assert [name for name in names if name.startswith("layer_")] == [f"layer_{n:02d}" for n in answer.layers_run]
        assert max(int(name[-2:]) for name in names[2:]) <= answer.exit_layer
        assert len(set(names)) == len(names)


def test_rows_and_times_add_up(classifier: SmartBert) -> None:
    answers = classifier.classify(SENTENCES, policy=POLICY.at_full_depth(), batch_size=len(SENTENCES))
    runs = answers[0].trace.batch_runs
    assert {run.rows for run in runs} == {len(SENTENCES)}
    assert len(runs) == 2 + LAYERS + 1, "tokenizer, embeddings, each layer, the last head"
    assert all(run.seconds > 0.0 for run in runs)
    assert [run.started for run in runs] == sorted(run.started for run in runs)
    assert sum(run.seconds for run in runs) * 1000.0 <= max(answer.latency_ms for answer in answers)


def test_batches_share_token_counts(classifier: SmartBert) -> None:
    # A word of more than 100 characters is one unknown token.
    texts = [
        "a b c d e f g h",
        "x" * 120,
        "Do cats eat bats?",
        "How doth the little crocodile improve his shining tail!",
    ]
    tokens = classifier.tokenizer.encode(texts).attention_mask_bs.sum(axis=1).tolist()
    assert sorted(range(4), key=tokens.__getitem__) == [1, 2, 0, 3]
    assert sorted(range(4), key=lambda row: len(texts[row])) == [0, 2, 3, 1], "by characters, others would share"
    answers = classifier.classify(texts, policy=POLICY, batch_size=2)
    runs = [answer.trace.batch_runs for answer in answers]
    assert runs[1] is runs[2] and runs[0] is runs[3] and runs[0] is not runs[1]


def test_batches_share_tokenizing_time(classifier: SmartBert) -> None:
    answers = classifier.classify(SENTENCES[:4], policy=POLICY, batch_size=2)
    first_runs, second_runs = sorted({answer.trace.batch_runs for answer in answers}, key=lambda runs: runs[0].started)
    first, second = first_runs[0], second_runs[0]
    assert (first.part, first.rows, second.rows) == (TOKENIZER, 2, 2)
    assert first.seconds == second.seconds > 0.0
    # One after the other, so that they can be drawn. A clock's differences, which are small: its own numbers are large.
    assert second.started - first.started == pytest.approx(first.seconds, rel=0, abs=1e-7)
    assert first.seconds > 1e-6, "or the comparison shows nothing"
    assert second.started + second.seconds < first_runs[1].started, "tokenizing comes before the first batch"


def test_step_time_is_layer_and_head(classifier: SmartBert) -> None:
    trace = classifier.classify(SENTENCES[:1], policy=Policy(no_skip=True, max_layers=2))[0].trace
    took = {run.part: run.seconds * 1000.0 for run in trace.batch_runs}
    first = next(iter(trace.steps()))
    assert first.milliseconds == pytest.approx(took["layer_01"] + took["exit_01"])
