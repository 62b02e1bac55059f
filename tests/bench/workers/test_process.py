"""Worker and Turns: one process runs while the others are stopped, a dead one is named, a package's process is lean."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smartbert_bench.contenders.contender import Contender
from smartbert_bench.turns import Turns, check_turns, chunks, in_turn
from smartbert_bench.workers.process import Worker, WorkerSpec
from smartbert_bench.workers.protocol import ClassifyRequest
from smartbert_runtime import SmartBert
from smartbert_runtime.errors import BenchError, ConfigError
from tests.bench.conftest import TEXTS

HEAVY = ("torch", "transformers", "onnx", "optimum", "datasets", "smartbert", "smartbert_export")
REQUEST = ClassifyRequest(texts=TEXTS, pairs=None, mode="policy", batch_size=1, warm_up=1)

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a process's state is read from /proc")


@pytest.fixture(scope="module")
def spec(own: list[Contender]) -> WorkerSpec:
    return own[0].worker


@pytest.fixture(scope="module")
def worker(spec: WorkerSpec) -> Iterator[Worker]:
    """A worker that is loaded and lives on."""
    with Worker(spec, threads=1) as started:
        started.load(preload=True)
        yield started


def state(worker: Worker) -> str:
    """R runs, S sleeps, T is stopped."""
    return Path(f"/proc/{worker.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def test_worker_matches_package(worker: Worker, classifier: SmartBert) -> None:
    expected = classifier.classify(TEXTS)
    for request in (REQUEST, replace(REQUEST, batch_size=2, warm_up=2)):
        reply = worker.classify(request)
        assert reply.labels == tuple(prediction.label for prediction in expected)
        assert reply.layers_run == tuple(len(prediction.layers_run) for prediction in expected)
        assert len(reply.ms) == (4 if request.batch_size == 1 else 1) and min(reply.ms) > 0.0
    assert worker.classify(replace(REQUEST, mode="full depth")).layers_run == (4, 4, 4, 4)


@needs_proc
def test_one_runs_while_others_stop(spec: WorkerSpec) -> None:
    turns = Turns()
    with Worker(spec, threads=1) as one, Worker(spec, threads=1) as two:
        for worker in (one, two):
            turns.begin(worker).load(preload=False)
        assert (state(one), state(two) in "RS") == ("T", True)
        assert turns.give(one).classify(REQUEST).labels == one.classify(REQUEST).labels
        assert (state(one) in "RS", state(two)) == (True, "T")
        assert turns.give(one) is one and state(two) == "T"
        turns.end()
        assert (state(one), state(two)) == ("T", "T")
    # Killed although they were stopped.
    assert not Path(f"/proc/{one.pid}").exists() and not Path(f"/proc/{two.pid}").exists()


@needs_proc
def test_process_has_no_training_library(worker: Worker) -> None:
    worker.classify(REQUEST)
    mapped = Path(f"/proc/{worker.pid}/maps").read_text(encoding="utf-8")
    assert "onnxruntime" in mapped and "libtorch" not in mapped


@pytest.mark.parametrize("module", ["package_worker", "graph_worker"])
def test_worker_imports_no_training_library(module: str) -> None:
    program = f"import sys, smartbert_bench.workers.{module}\nprint([one for one in {HEAVY!r} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "[]\n"


def test_killed_process_is_named(spec: WorkerSpec) -> None:
    with Worker(spec, threads=1) as worker:
        worker.load(preload=False)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(BenchError, match=r"^separate-fp32: its process was killed by SIGKILL") as caught:
            worker.classify(REQUEST)
        assert caught.value.hint


def test_killed_while_stopped_is_named(spec: WorkerSpec) -> None:
    turns = Turns()
    with Worker(spec, threads=1) as one, Worker(spec, threads=1) as two:
        for worker in (one, two):
            turns.begin(worker).load(preload=False)
        os.kill(one.pid, signal.SIGKILL)
        with pytest.raises(BenchError, match="SIGKILL"):
            turns.give(one).classify(REQUEST)
        os.kill(two.pid, signal.SIGKILL)
        with pytest.raises(BenchError, match="SIGKILL"):
            two.stop()


def test_failed_start_is_named() -> None:
    with (
        Worker(WorkerSpec(name="ghost", module="smartbert_runtime.no_such", spec={}), threads=1) as worker,
        pytest.raises(BenchError, match=r"^ghost: its process exited with code 1: .*smartbert_runtime\.no_such"),
    ):
        worker.load(preload=True)


def test_process_survives_a_bad_folder(spec: WorkerSpec, tmp_path: Path) -> None:
    lost = replace(spec, spec={**spec.spec, "folder": str(tmp_path)})
    with Worker(lost, threads=1) as worker:
        for _ in range(2):
            with pytest.raises(BenchError, match=r"^separate-fp32: .* holds no readable manifest\.json") as caught:
                worker.load(preload=True)
            assert caught.value.hint == "give the folder that smartbert-export wrote, whole"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux notifies a child of its parent's death")
def test_worker_dies_with_parent(spec: WorkerSpec) -> None:
    program = (
        "import sys, time\n"
        "from smartbert_bench.workers.process import WorkerSpec\n"
        "from smartbert_bench.workers.process import Worker\n"
        f"worker = Worker(WorkerSpec(name='one', module={spec.module!r}, spec={spec.spec!r}), threads=1)\n"
        "worker.load(preload=False)\n"
        "worker.stop()\n"
        "print(worker.pid, flush=True)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = Path(f"/proc/{parent.stdout.readline().strip()}")
    assert child.exists()
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 30.0
    while child.exists() and "State:\tZ" not in _status(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not child.exists() or "State:\tZ" in _status(child)


def _status(process: Path) -> str:
    try:
        return (process / "status").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return "State:\tZ"


def test_turns_alternate() -> None:
    assert [in_turn("abc", number) for number in range(3)] == ["abc", "cba", "abc"]
    assert chunks(60, 25) == [range(0, 25), range(25, 50), range(50, 60)]
    assert chunks(2, 25) == [range(0, 2)]


def test_turns_need_sigstop(monkeypatch: pytest.MonkeyPatch) -> None:
    check_turns(2)
    monkeypatch.delattr(signal, "SIGSTOP")
    check_turns(1)
    with pytest.raises(ConfigError, match="side by side"):
        check_turns(2)
