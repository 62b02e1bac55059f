"""timing, chrome_trace: every call of a part is noted once, belongs to the texts that took part, and can be drawn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smartbert_runtime import InputError, Policy, SmartBert
from smartbert_runtime.chrome_trace import chrome_trace
from smartbert_runtime.trace import TOKENIZER
from tests.conftest import LAYERS, SENTENCES

POLICY = Policy(exit_threshold=0.5)


@pytest.mark.parametrize("batch_size", [1, 24])
def test_a_texts_runs_are_the_parts_that_it_needed(classifier: SmartBert, batch_size: int) -> None:
    for answer in classifier.classify(SENTENCES, policy=POLICY, batch_size=batch_size):
        names = [run.part for run in answer.trace.part_runs()]
        assert names[:2] == [TOKENIZER, "embeddings"]
        assert [name for name in names if name.startswith("layer_")] == [f"layer_{n:02d}" for n in answer.layers_run]
        assert max(int(name[-2:]) for name in names[2:]) <= answer.exit_layer
        assert len(set(names)) == len(names)


def test_rows_are_counted_and_times_add_up_to_less_than_the_whole(classifier: SmartBert) -> None:
    answers = classifier.classify(SENTENCES, policy=POLICY.at_full_depth(), batch_size=len(SENTENCES))
    runs = answers[0].trace.batch_runs
    assert {run.rows for run in runs} == {len(SENTENCES)}
    assert len(runs) == 2 + LAYERS + 1, "tokenizer, embeddings, each layer, the last head"
    assert all(run.seconds > 0.0 for run in runs)
    assert [run.started for run in runs] == sorted(run.started for run in runs)
    assert sum(run.seconds for run in runs) * 1000.0 <= max(answer.latency_ms for answer in answers)


def test_texts_share_batches_by_their_tokens_and_the_time_of_tokenizing(classifier: SmartBert) -> None:
    # In characters the other way round: a long word the vocabulary has none of is one unknown token.
    words, letters = "a b c d e f g h", "x" * 90
    answers = classifier.classify([letters, words, letters, words], policy=POLICY, batch_size=2)
    runs = [answer.trace.batch_runs for answer in answers]
    assert runs[0] is runs[2] and runs[1] is runs[3]
    first, second = runs[0][0], runs[1][0]
    assert (first.part, first.rows, second.rows) == (TOKENIZER, 2, 2)
    assert first.seconds == second.seconds > 0.0
    assert second.started == pytest.approx(first.started + first.seconds), "one after the other, drawn once"
    assert second.started + second.seconds < runs[0][1].started, "all texts are tokenized before the first batch runs"


def test_a_steps_time_is_that_of_its_layer_gate_and_head(classifier: SmartBert) -> None:
    trace = classifier.classify(SENTENCES[:1], policy=Policy(no_skip=True, max_layers=2))[0].trace
    took = {run.part: run.seconds * 1000.0 for run in trace.batch_runs}
    first = next(iter(trace.steps()))
    assert first.milliseconds == pytest.approx(took["layer_01"] + took["exit_01"])


def test_a_batchs_runs_are_drawn_once(classifier: SmartBert, tmp_path: Path) -> None:
    answers = classifier.classify(SENTENCES, policy=POLICY, batch_size=8)
    file = tmp_path / "trace.json"
    with chrome_trace(file) as chrome:
        for answer in answers:
            chrome.add(answer.trace)
        assert not file.exists(), "it appears whole"
    drawn = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    batches = {answer.trace.batch_runs[0].started: answer.trace.batch_runs for answer in answers}
    assert len(batches) == len(SENTENCES) // 8
    expected = sorted((run.started, run.part, run.rows) for runs in batches.values() for run in runs)
    found = sorted((event["ts"] / 1e6, event["name"], event["args"]["rows"]) for event in drawn)
    assert [row[1:] for row in found] == [row[1:] for row in expected]
    assert [row[0] for row in found] == pytest.approx([row[0] for row in expected])
    assert {event["ph"] for event in drawn} == {"X"}


def test_nothing_is_left_where_a_trace_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"), chrome_trace(tmp_path / "missing" / "trace.json"):
        pass
    with pytest.raises(InputError, match="it is no file"), chrome_trace(tmp_path):
        pass
    for error in (RuntimeError("while answering"), OSError("another file's")):
        with pytest.raises(type(error), match=str(error)), chrome_trace(tmp_path / "trace.json"):
            raise error
    assert list(tmp_path.iterdir()) == []
