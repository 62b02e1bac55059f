"""The protocol between parent and worker: every message survives the pipe."""

from __future__ import annotations

from pathlib import Path

import pytest

from smartbert_bench.workers.memory import process_memory
from smartbert_bench.workers.protocol import (
    ClassifyReply,
    ClassifyRequest,
    LoadReply,
    LoadRequest,
    MemoryReply,
    MemoryRequest,
    Reply,
    Request,
    read_reply,
    read_request,
    write_reply,
    write_request,
)
from smartbert_runtime.errors import BenchError


@pytest.mark.parametrize(
    "message",
    [
        LoadRequest(spec={"folder": "out", "threads": 2}, preload=True),
        ClassifyRequest(texts=("Zoë\n\u2028", "b"), pairs=None, mode="policy", batch_size=1, warm_up=1),
        ClassifyRequest(texts=("a",), pairs=("b",), mode="", batch_size=32, warm_up=0),
        MemoryRequest(),
    ],
)
def test_request_round_trip(message: Request) -> None:
    line = write_request(message)
    assert line.endswith(b"\n") and line.count(b"\n") == 1
    assert read_request(line) == message


@pytest.mark.parametrize(
    "reply",
    [
        LoadReply(load_seconds=0.25, versions={"onnxruntime": "1"}),
        ClassifyReply(labels=("ham",), layers_run=None, ms=(1.5,)),
        ClassifyReply(labels=("ham", "spam"), layers_run=(1, 6), ms=(1.5, 2.0)),
        MemoryReply(resident_mb=None, peak_mb=12.0),
    ],
)
def test_reply_round_trip(reply: Reply) -> None:
    assert read_reply(write_reply(reply)) == reply


def test_error_reply_is_raised() -> None:
    with pytest.raises(BenchError, match=r"^no such folder$") as caught:
        read_reply(write_reply(BenchError("no such folder", hint="name another")))
    assert caught.value.hint == "name another"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_memory_is_in_megabytes() -> None:
    before = process_memory().resident_mb
    block = bytearray(b"x") * 50_000_000
    found = process_memory()
    assert before is not None and found.resident_mb is not None and found.peak_mb is not None
    assert found.resident_mb - before == pytest.approx(len(block) / 1e6, abs=5.0)
    assert found.peak_mb >= found.resident_mb - 1.0
