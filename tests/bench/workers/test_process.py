"""Worker and Turns: who is not on turn stands still, who dies is named, and a package's process is lean."""

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
from smartbert_bench.workers.protocol import Ask
from smartbert_runtime import SmartBert
from smartbert_runtime.errors import BenchError, ConfigError
from tests.bench.conftest import TEXTS

HEAVY = ("torch", "transformers", "onnx", "optimum", "datasets", "smartbert", "smartbert_export")
ASKED = Ask(texts=TEXTS, pairs=None, way="policy", batch_size=1, wake=1)

needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="a process's state is read from /proc")


@pytest.fixture
def spec(own: list[Contender]) -> WorkerSpec:
    return own[0].worker


@pytest.fixture
def worker(spec: WorkerSpec) -> Iterator[Worker]:
    with Worker(spec, threads=1) as started:
        yield started


def state(worker: Worker) -> str:
    """R runs, S sleeps, T is stopped."""
    return Path(f"/proc/{worker.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]


def test_it_answers_as_the_package_does(worker: Worker, classifier: SmartBert) -> None:
    worker.open(preload=True)
    expected = classifier.classify(TEXTS)
    for asked in (ASKED, replace(ASKED, batch_size=2, wake=2)):
        found = worker.answer(asked)
        assert found.labels == tuple(prediction.label for prediction in expected)
        assert found.layers_run == tuple(len(prediction.layers_run) for prediction in expected)
        assert len(found.ms) == (4 if asked.batch_size == 1 else 1) and min(found.ms) > 0.0
    assert worker.answer(replace(ASKED, way="all layers")).layers_run == (4, 4, 4, 4)


@needs_proc
def test_one_runs_and_the_others_are_stopped(spec: WorkerSpec) -> None:
    turns = Turns()
    with Worker(spec, threads=1) as one, Worker(spec, threads=1) as two:
        for worker in (one, two):
            turns.begin(worker).open(preload=False)
        assert (state(one), state(two) in "RS") == ("T", True)
        assert turns.give(one).answer(ASKED).labels == one.answer(ASKED).labels
        assert (state(one) in "RS", state(two)) == (True, "T")
        assert turns.give(one) is one and state(two) == "T"
        turns.end()
        assert (state(one), state(two)) == ("T", "T")
    # Ended though they stood still.
    assert not Path(f"/proc/{one.pid}").exists() and not Path(f"/proc/{two.pid}").exists()


@needs_proc
def test_a_package_s_process_has_no_training_library(worker: Worker) -> None:
    worker.open(preload=True)
    worker.answer(ASKED)
    mapped = Path(f"/proc/{worker.pid}/maps").read_text(encoding="utf-8")
    assert "onnxruntime" in mapped and "libtorch" not in mapped


@pytest.mark.parametrize("runner", ["package_runner", "plain_runner"])
def test_a_runner_imports_no_training_library(runner: str) -> None:
    program = f"import sys, smartbert_bench.{runner}\nprint([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout == "[]\n"


def test_a_process_that_was_killed_is_named(worker: Worker) -> None:
    worker.open(preload=False)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(BenchError, match=r"^separate-fp32: its process was ended by SIGKILL") as caught:
        worker.answer(ASKED)
    assert caught.value.hint


def test_a_process_that_died_out_of_turn_is_named(spec: WorkerSpec) -> None:
    turns = Turns()
    with Worker(spec, threads=1) as one, Worker(spec, threads=1) as two:
        for worker in (one, two):
            turns.begin(worker).open(preload=False)
        os.kill(one.pid, signal.SIGKILL)
        with pytest.raises(BenchError, match="SIGKILL"):
            turns.give(one).answer(ASKED)
        os.kill(two.pid, signal.SIGKILL)
        with pytest.raises(BenchError, match="SIGKILL"):
            two.stop()


def test_a_process_that_cannot_start_is_named_with_its_last_words() -> None:
    with (
        Worker(WorkerSpec(name="ghost", module="smartbert_runtime.no_such", spec={}), threads=1) as worker,
        pytest.raises(BenchError, match=r"^ghost: its process ended with exit code 1: .*smartbert_runtime\.no_such"),
    ):
        worker.open(preload=True)


def test_a_folder_that_is_no_package_is_named_and_the_process_lives(spec: WorkerSpec, tmp_path: Path) -> None:
    lost = replace(spec, spec={**spec.spec, "folder": str(tmp_path)})
    with Worker(lost, threads=1) as worker:
        for _ in range(2):
            with pytest.raises(BenchError, match=r"^separate-fp32: .* holds no readable manifest\.json") as caught:
                worker.open(preload=True)
            assert caught.value.hint == "give the folder that smartbert-export wrote, whole"


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is told to its children by Linux")
def test_nobody_is_left_when_the_parent_is_killed(spec: WorkerSpec) -> None:
    program = (
        "import sys, time\n"
        "from smartbert_bench.contenders.contender import WorkerSpec\n"
        "from smartbert_bench.workers.process import Worker\n"
        f"worker = Worker(WorkerSpec(name='one', module={spec.module!r}, spec={spec.spec!r}), threads=1)\n"
        "worker.open(preload=False)\n"
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


def test_turns_go_there_and_back() -> None:
    assert [in_turn("abc", number) for number in range(3)] == ["abc", "cba", "abc"]
    assert chunks(60, 25) == [range(0, 25), range(25, 50), range(50, 60)]
    assert chunks(2, 25) == [range(0, 2)]


def test_several_processes_need_a_system_that_can_stop_them(monkeypatch: pytest.MonkeyPatch) -> None:
    check_turns(2)
    monkeypatch.delattr(signal, "SIGSTOP")
    check_turns(1)
    with pytest.raises(ConfigError, match="side by side"):
        check_turns(2)
