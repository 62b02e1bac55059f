"""chrome_trace: what a batch ran is drawn once, and the file appears whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smartbert_runtime import InputError, Policy, SmartBert
from smartbert_runtime.chrome_trace import chrome_trace
from tests.conftest import SENTENCES


def test_batch_is_drawn_once(classifier: SmartBert, tmp_path: Path) -> None:
    answers = classifier.classify(SENTENCES, policy=Policy(exit_threshold=0.5), batch_size=8)
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
    # Differences of the clock, not its own large numbers.
    start = expected[0][0]
    assert [row[0] - start for row in found] == pytest.approx([row[0] - start for row in expected], rel=0, abs=1e-7)
    assert {event["ph"] for event in drawn} == {"X"}


def test_failure_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"), chrome_trace(tmp_path / "missing" / "trace.json"):
        pass
    with pytest.raises(InputError, match="it is not a file"), chrome_trace(tmp_path):
        pass
    for error in (RuntimeError("while answering"), OSError("another file's")):
        with pytest.raises(type(error), match=str(error)), chrome_trace(tmp_path / "trace.json"):
            raise error
    assert list(tmp_path.iterdir()) == []
