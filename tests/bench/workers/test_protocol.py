"""What parent and worker say to each other survives the pipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from smartbert_bench.workers.memory import weigh
from smartbert_bench.workers.protocol import (
    Answered,
    Ask,
    Open,
    Opened,
    Question,
    Reply,
    Weigh,
    Weight,
    read_question,
    read_reply,
    write_question,
    write_reply,
)
from smartbert_runtime.errors import BenchError


@pytest.mark.parametrize(
    "question",
    [
        Open(spec={"folder": "out", "threads": 2}, preload=True),
        Ask(texts=("Zoë\n\u2028", "b"), pairs=None, way="policy", batch_size=1, wake=1),
        Ask(texts=("a",), pairs=("b",), way="", batch_size=32, wake=0),
        Weigh(),
    ],
)
def test_a_question_is_one_line(question: Question) -> None:
    line = write_question(question)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert read_question(line) == question


@pytest.mark.parametrize(
    "reply",
    [
        Opened(load_seconds=0.25, versions={"onnxruntime": "1"}),
        Answered(labels=("ham",), layers_run=None, ms=(1.5,)),
        Answered(labels=("ham", "spam"), layers_run=(1, 6), ms=(1.5, 2.0)),
        Weight(resident_mb=None, peak_mb=12.0),
    ],
)
def test_a_reply_is_one_line(reply: Reply) -> None:
    assert read_reply(write_reply(reply)) == reply


def test_an_error_is_raised_where_it_arrives() -> None:
    with pytest.raises(BenchError, match=r"^no such folder$") as caught:
        read_reply(write_reply(BenchError("no such folder", hint="name another")))
    assert caught.value.hint == "name another"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_is_in_megabytes() -> None:
    before = weigh().resident_mb
    block = bytearray(b"x") * 50_000_000
    found = weigh()
    assert before is not None and found.resident_mb is not None and found.peak_mb is not None
    assert found.resident_mb - before == pytest.approx(len(block) / 1e6, abs=5.0)
    assert found.peak_mb >= found.resident_mb - 1.0
