"""sessions: parts are loaded when first asked, on the threads and providers named, and never twice."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import onnxruntime
import pytest

from smartbert_runtime import Policy, SmartBert
from smartbert_runtime.errors import ConfigError, IntegrityError, ManifestError, ProviderError
from smartbert_runtime.package.manifest import Borrowed
from smartbert_runtime.package.open import open_package
from smartbert_runtime.sessions.providers import CPU
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.sessions.threads import available_threads
from tests.conftest import SENTENCES
from tests.helpers import edit_manifest, refresh_hashes
from tests.runtime.packages import first_component, first_file, flip_byte

AZURE = "AzureExecutionProvider"  # in onnxruntime's own wheels for servers; it takes no node of ours
ALL_PARTS = ["embeddings", *sorted(f"{role}_{n:02d}" for role in ("exit", "gate", "layer") for n in range(1, 5))]


def open_sessions(folder: Path, *, threads: int | None = None) -> Sessions:
    package = open_package(folder)
    return Sessions(package, package.manifest.variant(), threads=threads)


def test_loading_a_package_opens_no_part(package_dir: Path) -> None:
    assert SmartBert.load(package_dir).sessions.placements() == {}


def test_only_parts_that_a_text_reaches_are_opened(package_dir: Path) -> None:
    model = SmartBert.load(package_dir)
    model.classify(["Off with her head!"], policy=Policy(no_skip=True, no_exit=True, max_layers=2))
    assert list(model.sessions.placements()) == ["embeddings", "exit_02", "layer_01", "layer_02"]
    # It skips layers 1, 2 and 4.
    model = SmartBert.load(package_dir)
    (prediction,) = model.classify(["Down, down, down."])
    assert prediction.layers_run == (3,)
    asked = ["embeddings", "exit_03", "exit_04", "gate_01", "gate_02", "gate_03", "gate_04", "layer_03"]
    assert list(model.sessions.placements()) == asked


def test_preload_opens_every_part(package_dir: Path) -> None:
    assert list(SmartBert.load(package_dir, preload=True).sessions.placements()) == ALL_PARTS


def test_placements_count_nodes_by_provider(package_dir: Path) -> None:
    sessions = open_sessions(package_dir)
    sessions.open("layer_01")
    (counts,) = sessions.placements().values()
    assert list(counts) == [CPU]
    assert counts[CPU] > 10


def test_a_part_runs_and_its_session_is_kept(package_dir: Path) -> None:
    sessions = open_sessions(package_dir)
    feeds = {"hidden": np.zeros((2, 3, 32), np.float32), "mask": np.zeros((2, 1, 1, 3), np.float32)}
    (logits_bc,) = sessions.run("exit_01", feeds)
    assert logits_bc.shape == (2, 3)
    assert logits_bc.dtype == np.float32
    assert np.array_equal(logits_bc[0], logits_bc[1])
    assert sessions.open("exit_01") is sessions.open("exit_01")


def test_workers_spin_during_a_run_only_and_use_the_threads_named(package_dir: Path) -> None:
    options = open_sessions(package_dir, threads=1).open("gate_01").get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)


def test_threads_must_be_at_least_one(package_dir: Path) -> None:
    for threads in (0, -2):
        with pytest.raises(ConfigError, match=f"threads must be 1 or more, not {threads}"):
            open_sessions(package_dir, threads=threads)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this platform has no affinity")
def test_threads_default_to_the_cores_that_the_process_may_use(package_dir: Path) -> None:
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


def test_an_unknown_provider_lists_those_available(package_dir: Path) -> None:
    with pytest.raises(ProviderError, match="has no provider 'WarpDriveExecutionProvider' here") as caught:
        SmartBert.load(package_dir, providers=["CPUExecutionProvider", "WarpDriveExecutionProvider"])
    assert caught.value.hint == "available: " + ", ".join(onnxruntime.get_available_providers())
    assert CPU in caught.value.hint


def test_naming_no_provider_is_refused(package_dir: Path) -> None:
    with pytest.raises(ProviderError, match="no execution provider named"):
        SmartBert.load(package_dir, providers=[])


def test_eight_threads_opening_a_part_share_one_session(package_dir: Path) -> None:
    sessions, barrier = open_sessions(package_dir), Barrier(8)

    def open_together(_: int) -> onnxruntime.InferenceSession:
        barrier.wait(timeout=60)
        return sessions.open("layer_01")

    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(open_together, range(8)))
    assert len({id(session) for session in opened}) == 1
    assert list(sessions.placements()) == ["layer_01"]


def test_threads_that_classify_at_once_get_the_answers_of_one(package_dir: Path, classifier: SmartBert) -> None:
    model = SmartBert.load(package_dir, threads=1)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: model.classify(SENTENCES), range(8)))
    expected = [prediction.trace.decisions() for prediction in classifier.classify(SENTENCES)]
    assert all([prediction.trace.decisions() for prediction in answer] == expected for answer in answers)


def test_a_changed_graph_of_the_same_size_is_found_when_its_part_is_first_asked(package_copy: Path) -> None:
    flip_byte(package_copy / "graphs" / "layer_02.onnx", 20_000)
    model = SmartBert.load(package_copy)
    # "Down, down, down." does not run layer 2; "We are all mad here." does.
    assert model.classify(["Down, down, down."])[0].layers_run == (3,)
    with pytest.raises(IntegrityError, match=r"graphs/layer_02\.onnx does not match the manifest"):
        model.classify(["We are all mad here."])


def test_a_graph_that_onnxruntime_cannot_load_is_named(package_copy: Path) -> None:
    (package_copy / "graphs" / "layer_02.onnx").write_bytes(b"not a graph")
    refresh_hashes(package_copy)
    with pytest.raises(IntegrityError, match=r"onnxruntime cannot load graphs/layer_02\.onnx") as caught:
        open_sessions(package_copy).open("layer_02")
    assert caught.value.hint == "export again"


def test_an_unknown_part_is_a_named_error(package_dir: Path) -> None:
    with pytest.raises(ManifestError, match="no part 'layer_05'"):
        open_sessions(package_dir).run("layer_05", {})


def test_a_part_without_a_file_for_the_variant_is_a_named_error(package_copy: Path) -> None:
    other = {"name": "separate-int8", "layout": "separate", "precision": "int8"}
    edit_manifest(package_copy, lambda document: document["variants"].append(other))
    edit_manifest(
        package_copy,
        lambda document: first_component(document).update(files={"separate-int8": first_file(document)}),
    )
    with pytest.raises(ManifestError, match="embeddings"):
        SmartBert.load(package_copy, precision="fp32").classify(["Off with her head!"])


# Providers of one role


def test_a_provider_for_one_role_leaves_the_cpu_to_all_others(package_dir: Path, classifier: SmartBert) -> None:
    model = SmartBert.load(package_dir, providers=["layer=CPUExecutionProvider"])
    assert model.sessions.providers == (CPU,)
    assert model.sessions.role_providers == {"": (CPU,), "layer": (CPU,)}
    expected = [prediction.trace.decisions() for prediction in classifier.classify(SENTENCES)]
    assert [prediction.trace.decisions() for prediction in model.classify(SENTENCES)] == expected


@pytest.mark.skipif(AZURE not in onnxruntime.get_available_providers(), reason=f"this onnxruntime has no {AZURE}")
def test_only_parts_of_the_role_are_loaded_on_its_provider(package_dir: Path) -> None:
    sessions = SmartBert.load(package_dir, providers=[f"layer={AZURE}"]).sessions
    assert sessions.open("layer_02").get_providers() == [AZURE, CPU]
    for part in ("embeddings", "gate_02", "exit_02"):
        assert sessions.open(part).get_providers() == [CPU]
    # A provider without a role is for all roles that have none of their own.
    sessions = SmartBert.load(package_dir, providers=[AZURE, CPU, f"gate={CPU}"]).sessions
    assert sessions.providers == (AZURE, CPU)
    assert sessions.open("layer_02").get_providers() == [AZURE, CPU]
    assert sessions.open("gate_02").get_providers() == [CPU]


def test_an_unknown_role_lists_those_there_are(package_dir: Path) -> None:
    with pytest.raises(ProviderError, match="no part has the role 'tail'") as caught:
        SmartBert.load(package_dir, providers=["tail=CPUExecutionProvider"])
    assert caught.value.hint == "roles: embeddings, gate, layer, exit, stage, model"


def test_an_unknown_provider_of_a_role_lists_those_available(package_dir: Path) -> None:
    with pytest.raises(ProviderError, match="has no provider 'WarpDriveExecutionProvider' here") as caught:
        SmartBert.load(package_dir, providers=[CPU, "layer=WarpDriveExecutionProvider"])
    assert CPU in caught.value.hint
    with pytest.raises(ProviderError, match="has no provider '' here"):
        SmartBert.load(package_dir, providers=["layer="])


# Weights that lie in other files


def fused(folder: Path) -> Sessions:
    package = open_package(folder)
    return Sessions(package, package.manifest.variant("fused"))


# Lender -> what stage_02 borrows of it: dimensions of the first weight, and the output that all of them lead to.
LENT = {"layer_02": ((32, 32), 0), "exit_02": ((16, 16), 1), "gate_03": ((32, 16), 2)}


def borrowed_weight(folder: Path, lender: str = "layer_02") -> Borrowed:
    """The first weight that stage_02 borrows from this part's graph."""
    borrowed = open_package(folder).manifest.component("stage_02").files["fused-fp32"].borrowed
    return next(weight for weight in borrowed if weight.file == f"graphs/{lender}.onnx")


def edit_borrowed(folder: Path, name: str, change: dict[str, Any]) -> None:
    """Change what the manifest says of a weight that stage_02 borrows."""

    def edit(document: dict[str, Any]) -> None:
        (component,) = (entry for entry in document["components"] if entry["name"] == "stage_02")
        (weight,) = (entry for entry in component["files"]["fused-fp32"]["borrowed"] if entry["name"] == name)
        weight.update(change)

    edit_manifest(folder, edit)


@pytest.mark.parametrize("lender", LENT)
def test_a_borrowed_weight_that_was_changed_in_its_own_file_is_found_when_the_borrower_is_opened(
    layouts_copy: Path, lender: str
) -> None:
    weight = borrowed_weight(layouts_copy, lender)
    assert weight.dims == LENT[lender][0] and weight.bytes == 4 * weight.dims[0] * weight.dims[1]
    flip_byte(layouts_copy / weight.file, weight.offset + weight.bytes // 2)
    sessions = fused(layouts_copy)
    sessions.open("stage_01")
    with pytest.raises(IntegrityError, match=rf"^graphs/{lender}\.onnx does not match the manifest"):
        sessions.open("stage_02")


@pytest.mark.parametrize("lender", LENT)
def test_a_lender_that_is_missing_is_found_before_anything_is_loaded(layouts_copy: Path, lender: str) -> None:
    (layouts_copy / borrowed_weight(layouts_copy, lender).file).unlink()
    with pytest.raises(IntegrityError, match=rf"^graphs/{lender}\.onnx is missing"):
        fused(layouts_copy)


@pytest.mark.parametrize("lender", LENT)
def test_borrowed_bytes_are_what_is_computed_with(layouts_dir: Path, layouts_copy: Path, lender: str) -> None:
    weight, output = borrowed_weight(layouts_copy, lender), LENT[lender][1]
    feeds = {"hidden": np.ones((1, 3, 32), np.float32), "mask": np.zeros((1, 1, 1, 3), np.float32)}
    feeds["hidden"][0, 1] = -2.0
    before = fused(layouts_dir).run("stage_02", feeds)[output]
    np.testing.assert_array_equal(fused(layouts_copy).run("stage_02", feeds)[output], before)
    file = layouts_copy / weight.file
    content = file.read_bytes()
    end = weight.offset + weight.bytes
    lent = np.frombuffer(content[weight.offset : end], weight.dtype).reshape(weight.dims)
    file.write_bytes(content[: weight.offset] + np.zeros_like(lent).tobytes() + content[end:])
    refresh_hashes(layouts_copy)
    assert np.abs(fused(layouts_copy).run("stage_02", feeds)[output] - before).max() > 0.01


def test_files_of_the_lenders_names_in_the_working_directory_are_not_read(
    layouts_dir: Path, classifier: SmartBert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A graph names its lenders by their paths; only bytes that were hashed may be computed with.
    for file in (layouts_dir / "graphs").iterdir():
        (tmp_path / file.name).write_bytes(bytes(file.stat().st_size))
    monkeypatch.chdir(tmp_path)
    expected = [prediction.trace.decisions() for prediction in classifier.classify(SENTENCES)]
    found = SmartBert.load(layouts_dir, layout="fused").classify(SENTENCES)
    assert [prediction.trace.decisions() for prediction in found] == expected


@pytest.mark.parametrize(
    "change",
    [{"offset": 10**9}, {"offset": -1}, {"bytes": 10**9}, {"file": "graphs/other.onnx"}, {"file": "../out.onnx"}],
    ids=str,
)
def test_a_weight_borrowed_from_where_it_is_not_is_refused(layouts_copy: Path, change: dict[str, Any]) -> None:
    name = borrowed_weight(layouts_copy).name
    assert name.startswith("layer.")
    edit_borrowed(layouts_copy, name, change)
    with pytest.raises(ManifestError, match=rf"stage_02\.onnx borrows {name} from '\S+', where it is not") as caught:
        open_package(layouts_copy)
    assert caught.value.hint == "export again"


def test_a_borrowed_range_may_end_where_its_file_ends_and_not_a_byte_later(layouts_copy: Path) -> None:
    weight = borrowed_weight(layouts_copy)
    last = (layouts_copy / weight.file).stat().st_size - weight.bytes
    edit_borrowed(layouts_copy, weight.name, {"offset": last})
    open_package(layouts_copy)
    edit_borrowed(layouts_copy, weight.name, {"offset": last + 1})
    with pytest.raises(ManifestError, match="where it is not"):
        open_package(layouts_copy)
