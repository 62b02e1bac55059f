"""sessions: parts are loaded at first use, with the threads and providers named, and never twice."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import onnx
import onnxruntime
import pytest

from smartbert_runtime import Policy, SmartBert
from smartbert_runtime.errors import ConfigError, IntegrityError, ManifestError, ProviderError
from smartbert_runtime.package.open import open_package
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.sessions.threads import available_threads
from tests.conftest import SENTENCES
from tests.helpers import edit_manifest, refresh_hashes
from tests.package_folders import first_component, first_file, flip_byte

AZURE = "AzureExecutionProvider"  # in onnxruntime's own wheels for servers; it takes no node of ours
ALL_PARTS = ["embeddings", *sorted(f"{role}_{n:02d}" for role in ("exit", "gate", "layer") for n in range(1, 5))]


def open_sessions(folder: Path, *, threads: int | None = None) -> Sessions:
    package = open_package(folder)
    return Sessions(package, package.manifest.variant(), threads=threads)


def test_load_opens_no_part(package_dir: Path) -> None:
    assert SmartBert.load(package_dir).sessions.placements() == {}


def test_parts_open_at_first_use(package_dir: Path) -> None:
    model = SmartBert.load(package_dir)
    model.classify(["Off with her head!"], policy=Policy(no_skip=True, no_exit=True, max_layers=2))
    assert list(model.sessions.placements()) == ["embeddings", "exit_02", "layer_01", "layer_02"]
    # It skips layers 1, 2 and 4.
    model = SmartBert.load(package_dir)
    (prediction,) = model.classify(["Down, down, down."])
    assert prediction.layers_run == (3,)
    reached = ["embeddings", "exit_03", "exit_04", "gate_01", "gate_02", "gate_03", "gate_04", "layer_03"]
    assert list(model.sessions.placements()) == reached


def test_preload_opens_every_part(package_dir: Path) -> None:
    assert list(SmartBert.load(package_dir, preload=True).sessions.placements()) == ALL_PARTS


def test_placements_count_nodes(package_dir: Path) -> None:
    sessions = open_sessions(package_dir)
    sessions.open("layer_01")
    (counts,) = sessions.placements().values()
    assert list(counts) == [CPU]
    assert counts[CPU] > 10


def test_run_keeps_session(package_dir: Path) -> None:
    sessions = open_sessions(package_dir)
    feeds = {"hidden": np.zeros((2, 3, 32), np.float32), "mask": np.zeros((2, 1, 1, 3), np.float32)}
    (logits_bc,) = sessions.run("exit_01", feeds)
    assert logits_bc.shape == (2, 3)
    assert logits_bc.dtype == np.float32
    assert np.array_equal(logits_bc[0], logits_bc[1])
    assert sessions.open("exit_01") is sessions.open("exit_01")


def test_thread_options(package_dir: Path) -> None:
    options = open_sessions(package_dir, threads=1).open("gate_01").get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


def test_session_config_is_added(package_dir: Path) -> None:
    package = open_package(package_dir)
    config = {"session.disable_prepacking": "1", "session.use_env_allocators": "0"}
    sessions = Sessions(package, package.manifest.variant(), session_config=config)
    options = sessions.open("gate_01").get_session_options()
    assert {name: options.get_session_config_entry(name) for name in config} == config


def test_no_threads_is_refused(package_dir: Path) -> None:
    for threads in (0, -2):
        with pytest.raises(ConfigError, match=f"threads must be 1 or more, not {threads}"):
            open_sessions(package_dir, threads=threads)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this platform has no affinity")
def test_threads_default_to_affinity(package_dir: Path) -> None:
    assert available_threads() == len(os.sched_getaffinity(0))
    assert open_sessions(package_dir).threads == len(os.sched_getaffinity(0))
    program = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from smartbert_runtime import SmartBert\n"
        "sessions = SmartBert.load(sys.argv[1]).sessions\n"
        "print(sessions.threads, sessions.open('gate_01').get_session_options().intra_op_num_threads)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(package_dir)], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout == "1 1\n"


def test_unknown_provider(package_dir: Path) -> None:
    with pytest.raises(ProviderError, match="has no provider 'WarpDriveExecutionProvider' here") as caught:
        SmartBert.load(package_dir, providers=["CPUExecutionProvider", "WarpDriveExecutionProvider"])
    assert caught.value.hint == "available: " + ", ".join(onnxruntime.get_available_providers())
    assert CPU in caught.value.hint


def test_no_provider_is_refused(package_dir: Path) -> None:
    with pytest.raises(ProviderError, match="no execution provider named"):
        SmartBert.load(package_dir, providers=[])


def test_threads_share_one_session(package_dir: Path) -> None:
    sessions, barrier = open_sessions(package_dir), Barrier(8)

    def open_together(_: int) -> onnxruntime.InferenceSession:
        barrier.wait(timeout=60)
        return sessions.open("layer_01")

    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(open_together, range(8)))
    assert len({id(session) for session in opened}) == 1
    assert list(sessions.placements()) == ["layer_01"]


def test_changed_graph_at_first_use(package_copy: Path) -> None:
    flip_byte(package_copy / "graphs" / "layer_02.onnx", 20_000)
    model = SmartBert.load(package_copy)
    # "Down, down, down." does not run layer 2; "We are all mad here." does.
    assert model.classify(["Down, down, down."])[0].layers_run == (3,)
    with pytest.raises(IntegrityError, match=r"graphs/layer_02\.onnx does not match the manifest"):
        model.classify(["We are all mad here."])


def test_invalid_graph_is_named(package_copy: Path) -> None:
    (package_copy / "graphs" / "layer_02.onnx").write_bytes(b"not a graph")
    refresh_hashes(package_copy)
    with pytest.raises(IntegrityError, match=r"onnxruntime cannot load graphs/layer_02\.onnx") as caught:
        open_sessions(package_copy).open("layer_02")
    assert caught.value.hint == "export again"


def test_unknown_part(package_dir: Path) -> None:
    with pytest.raises(ManifestError, match="no part 'layer_05'"):
        open_sessions(package_dir).run("layer_05", {})


def test_part_without_file(package_copy: Path) -> None:
    other = {"name": "separate-int8", "layout": "separate", "precision": "int8"}
    edit_manifest(package_copy, lambda document: document["variants"].append(other))
    edit_manifest(
        package_copy,
        lambda document: first_component(document).update(files={"separate-int8": first_file(document)}),
    )
    with pytest.raises(ManifestError, match="embeddings"):
        SmartBert.load(package_copy, precision="fp32").classify(["Off with her head!"])


# Providers of one role


def test_provider_of_one_role(package_dir: Path, classifier: SmartBert) -> None:
    model = SmartBert.load(package_dir, providers=["layer=CPUExecutionProvider"])
    assert model.sessions.providers == (CPU,)
    assert model.sessions.role_providers == {"": (CPU,), "layer": (CPU,)}
    expected = [prediction.trace.decisions() for prediction in classifier.classify(SENTENCES)]
    assert [prediction.trace.decisions() for prediction in model.classify(SENTENCES)] == expected


@pytest.mark.skipif(AZURE not in onnxruntime.get_available_providers(), reason=f"this onnxruntime has no {AZURE}")
def test_role_provider_loads_its_parts(package_dir: Path) -> None:
    sessions = SmartBert.load(package_dir, providers=[f"layer={AZURE}"]).sessions
    assert sessions.open("layer_02").get_providers() == [AZURE, CPU]
    for part in ("embeddings", "gate_02", "exit_02"):
        assert sessions.open(part).get_providers() == [CPU]
    # A provider without a role is for all roles that have none of their own.
    sessions = SmartBert.load(package_dir, providers=[AZURE, CPU, f"gate={CPU}"]).sessions
    assert sessions.providers == (AZURE, CPU)
    assert sessions.open("layer_02").get_providers() == [AZURE, CPU]
    assert sessions.open("gate_02").get_providers() == [CPU]


def test_unknown_role(package_dir: Path) -> None:
    with pytest.raises(ProviderError, match="no part has the role 'tail'") as caught:
        SmartBert.load(package_dir, providers=["tail=CPUExecutionProvider"])
    assert caught.value.hint == "roles: embeddings, gate, layer, exit, block, model"


def test_unknown_provider_of_role(package_dir: Path) -> None:
    with pytest.raises(ProviderError, match="has no provider 'WarpDriveExecutionProvider' here") as caught:
        SmartBert.load(package_dir, providers=[CPU, "layer=WarpDriveExecutionProvider"])
    assert CPU in caught.value.hint
    with pytest.raises(ProviderError, match="has no provider '' here"):
        SmartBert.load(package_dir, providers=["layer="])


def test_external_weights_are_refused(package_copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # onnxruntime would look for them in the working directory, in a file without a hash.
    monkeypatch.chdir(tmp_path)
    file = package_copy / "graphs" / "layer_02.onnx"
    graph = onnx.load(file)
    onnx.save(graph, str(file), save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").write_bytes((file.parent / "weights.bin").read_bytes())
    refresh_hashes(package_copy)
    with pytest.raises(IntegrityError, match=r"^onnxruntime cannot load graphs/layer_02\.onnx"):
        SmartBert.load(package_copy, preload=True)
