"""Parity can fail: two parts swapped, or any one weight matrix off by one percent, with hashes refreshed."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest

from smartbert_runtime.errors import ParityError
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import read_golden
from smartbert_runtime.parity.verify import VerifyReport, check_files, require_parity, verify
from smartbert_runtime.sessions.sessions import Sessions
from tests.helpers import change_weight, swap_files


def replay(folder: Path, part: str | None = None) -> VerifyReport:
    """As smartbert-verify: hash everything, then replay the golden samples."""
    opened = open_package(folder)
    check_files(opened)
    sessions = Sessions(opened, opened.manifest.variant())
    return verify(sessions, read_golden(opened), opened.manifest.golden.policy, oracle="the recording", part=part)


def matrices(folder: Path) -> list[tuple[str, str]]:
    """(part, weight) of every matrix in the package, also of those with one matrix for each attention head."""
    found = []
    for file in sorted((folder / "graphs").iterdir()):
        graph = onnx.load_model_from_string(file.read_bytes()).graph
        weights = (entry for entry in graph.initializer if entry.data_type == onnx.TensorProto.FLOAT)
        found += [(file.stem, entry.name) for entry in weights if len(entry.dims) >= 2]
    return found


def test_exported_package_passes(package_dir: Path) -> None:
    report = require_parity(replay(package_dir))
    assert report.first_failure is None and len(report.parts) == 13


@pytest.mark.parametrize("role", ["gate", "layer", "exit"])
def test_swapped_parts_fail(package_copy: Path, role: str) -> None:
    swap_files(package_copy, f"graphs/{role}_02.onnx", f"graphs/{role}_03.onnx")
    report = replay(package_copy)
    failed = [check.part for check in report.parts if not check.difference.ok]
    assert failed == [f"{role}_02", f"{role}_03"] and report.first_failure == f"{role}_02"
    assert not any(texts.decisions.ok for texts in report.texts)
    with pytest.raises(ParityError, match=rf"^{role}_02 differs from the recording: .* where .* is allowed") as error:
        require_parity(report)
    assert error.value.report is report


def test_one_percent_on_any_matrix_fails(package_dir: Path, tmp_path: Path) -> None:
    missed = []
    for part, weight in (found := matrices(package_dir)):
        copy = Path(shutil.copytree(package_dir, tmp_path / "copy"))
        change_weight(copy, part, weight, lambda array: array * 1.01)
        if replay(copy, part).first_failure != part:
            missed.append((part, weight))
        shutil.rmtree(copy)
    # Three tables; for each gate W, query with key, and value with decision; each layer's six; for each exit head W,
    # query, key, value, dense and classes.
    assert len(found) == 3 + 4 * (3 + 6 + 6)
    assert missed == []


@pytest.mark.parametrize("part", ["embeddings", "gate_02", "layer_03", "exit_04"])
def test_only_damaged_part_fails(package_copy: Path, part: str) -> None:
    weight = next(weight for name, weight in matrices(package_copy) if name == part)
    change_weight(package_copy, part, weight, lambda array: array * 1.01)
    report = replay(package_copy)
    assert [check.part for check in report.parts if not check.difference.ok] == [part]


def test_wrong_bias_fails(package_copy: Path) -> None:
    change_weight(package_copy, "gate_04", "read.take.0.bias", lambda array: array + 0.001)
    assert replay(package_copy).first_failure == "gate_04"


def test_nan_weight_fails(package_copy: Path) -> None:
    change_weight(package_copy, "exit_01", "classify.weight", lambda array: array * float("nan"))
    assert replay(package_copy).first_failure == "exit_01"
