"""sessions.threads: one shared thread pool for a process that wants it, and what is refused then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smartbert_runtime import SmartBert
from tests.conftest import SENTENCES


def in_a_process(program: str, package: Path) -> str:
    """What a fresh interpreter prints: the pool is the whole process's, so no test may share it in this one."""
    program = "import os, sys\nfrom smartbert_runtime import ConfigError, SmartBert, share_thread_pool\n" + program
    done = subprocess.run(
        [sys.executable, "-c", program, str(package), json.dumps(SENTENCES)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_shared_pool_changes_no_answer(package_dir: Path) -> None:
    program = (
        "import json\nshare_thread_pool(1)\n"
        "model = SmartBert.load(sys.argv[1])\n"
        "options = model.sessions.open('gate_01').get_session_options()\n"
        "assert model.sessions.threads == 1 and not options.use_per_session_threads\n"
        "found = model.classify(json.loads(sys.argv[2]))\n"
        "print(json.dumps([[p.label, p.exit_layer, list(p.layers_run), p.score] for p in found]))"
    )
    found = json.loads(in_a_process(program, package_dir))
    expected = SmartBert.load(package_dir, threads=1).classify(SENTENCES)
    assert [row[:3] for row in found] == [[p.label, p.exit_layer, list(p.layers_run)] for p in expected]
    assert [row[3] for row in found] == pytest.approx([p.score for p in expected], abs=1e-6)


def test_pool_size_is_final(package_dir: Path) -> None:
    program = (
        "share_thread_pool(1); share_thread_pool(1)\n"
        "for attempt in (lambda: share_thread_pool(2), lambda: SmartBert.load(sys.argv[1], threads=2)):\n"
        "    try:\n        attempt()\n    except ConfigError as err:\n        print(err)"
    )
    assert in_a_process(program, package_dir).splitlines() == [
        "the thread pool was made with 1 threads",
        "this process shares one pool of 1 threads, not 2",
    ]


TOO_LATE = "the thread pool cannot be shared any more: "


@pytest.mark.parametrize(
    ("first", "why", "hint"),
    [
        pytest.param(
            f"model = SmartBert.load(sys.argv[1], preload={preload})",
            "a model was loaded with threads of its own",
            "share it before the first model is loaded",
            id="a-model-and-its-sessions" if preload else "a-model",
        )
        for preload in (True, False)
    ]
    + [
        pytest.param(
            "from smartbert_runtime.sessions.threads import session_options; session_options(1)",
            "a model was loaded with threads of its own",
            "share it before the first model is loaded",
            id="a-session-of-the-export",
        ),
        pytest.param(
            "import onnxruntime; onnxruntime.set_global_thread_pool_sizes(1, 1)",
            "[ONNXRuntimeError] : 1 : FAIL : ",
            "leave set_global_thread_pool_sizes to share_thread_pool",
            id="a-pool-of-the-programs-own",
        ),
    ],
)
def test_too_late_to_share(package_dir: Path, first: str, why: str, hint: str) -> None:
    program = (
        f"{first}\ntry:\n    share_thread_pool(1)\nexcept ConfigError as err:\n    print(err, err.hint, sep='|')\n"
        # Nothing has changed for those who go on.
        "from smartbert_runtime.sessions.threads import POOL; assert POOL.threads is None\n"
        "if 'model' in globals():\n    model.classify(['one two'])"
    )
    error, found = in_a_process(program, package_dir).split("|")
    assert error.startswith(TOO_LATE + why) and found == hint


def test_failed_load_is_not_too_late(package_dir: Path) -> None:
    program = "try:\n    SmartBert.load(sys.argv[1], threads=0)\nexcept ConfigError:\n    print(share_thread_pool(1))"
    assert in_a_process(program, package_dir) == "True"


def test_onnxruntime_without_pools(package_dir: Path) -> None:
    """onnxruntime 1.22 and before have neither the function nor the option."""
    program = (
        "import onnxruntime\n"
        "class Options(onnxruntime.SessionOptions):\n    use_per_session_threads = property()\n"
        "onnxruntime.SessionOptions = Options\ndel onnxruntime.set_global_thread_pool_sizes\n"
        "print(share_thread_pool(1))\n"
        "model = SmartBert.load(sys.argv[1], threads=2)\nmodel.classify(['one two'])\n"
        "print(model.sessions.open('embeddings').get_session_options().intra_op_num_threads)"
    )
    assert in_a_process(program, package_dir).splitlines() == ["False", "2"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_child_is_refused(package_dir: Path) -> None:
    program = (
        "share_thread_pool(2)\nmodel = SmartBert.load(sys.argv[1])\nmodel.classify(['one two'])\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n        model.classify(['one two'])\n    except ConfigError as err:\n"
        "        print(err, flush=True)\n    os._exit(0)\n"
        "os.waitpid(child, 0)"
    )
    assert in_a_process(program, package_dir) == "the threads of the shared pool are not in this forked child"
