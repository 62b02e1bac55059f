"""verify: a good package passes, and a wrong weight is blamed on exactly the part that holds it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from smartbert_runtime.errors import IntegrityError, ManifestError, ParityError
from smartbert_runtime.golden import Golden, read_golden
from smartbert_runtime.manifest import open_package
from smartbert_runtime.policy import Policy
from smartbert_runtime.sessions import Sessions
from smartbert_runtime.verify import VerifyReport, check_files, require_parity, verify
from tests.conftest import SENTENCES
from tests.helpers import change_weight, refresh_hashes, swap_files
from tests.runtime.packages import flip_byte

ORACLE = "the golden samples"
POLICY = Policy(exit_threshold=0.5)
NAMES = ["embeddings", *(f"{role}_{index:02d}" for index in range(1, 5) for role in ("gate", "layer", "exit"))]


def check(folder: Path, golden: Golden, *, policy: Policy = POLICY, part: str | None = None) -> VerifyReport:
    package = open_package(folder)
    return verify(Sessions(package, package.manifest.variant()), golden, policy, oracle=ORACLE, part=part)


def failures(report: VerifyReport) -> list[str]:
    return [found.part for found in report.parts if not found.difference.ok]


@pytest.fixture(scope="module")
def golden(package_dir: Path) -> Golden:
    return read_golden(open_package(package_dir))


@pytest.fixture(scope="module")
def scratch(package_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One copy for many small damages; each test puts back what it changed."""
    yield Path(shutil.copytree(package_dir, tmp_path_factory.mktemp("scratch") / "out"))


def test_the_package_agrees_with_its_golden_samples(package_dir: Path, golden: Golden) -> None:
    package = open_package(package_dir)
    heard: list[str] = []
    sessions = Sessions(package, package.manifest.variant())
    report = verify(sessions, golden, package.manifest.golden.policy, oracle=ORACLE, on_part=heard.append)
    assert report.first_failure is None
    assert (report.variant, report.oracle) == ("separate-fp32", ORACLE)
    assert heard == [found.part for found in report.parts] == NAMES
    assert [texts.how for texts in report.texts] == ["texts one by one", "texts in batches of 32"]
    for texts in report.texts:
        assert (texts.decisions.texts, texts.decisions.different, texts.decisions.near) == (len(SENTENCES), (), ())
        assert texts.decisions.label_agreement == 1.0
    assert require_parity(report) is report


def test_more_texts_than_a_batch_holds_are_compared_each_with_its_own_trace(package_dir: Path, golden: Golden) -> None:
    rows = [*range(len(SENTENCES))] * 3
    repeated = replace(golden, tokens=golden.tokens.rows(rows), traces=tuple(golden.traces[row] for row in rows))
    report = check(package_dir, repeated)
    assert report.first_failure is None
    assert [texts.decisions.texts for texts in report.texts] == [72, 72]


def test_one_part_can_be_checked_alone(package_dir: Path, golden: Golden) -> None:
    report = check(package_dir, golden, part="layer_03")
    assert [found.part for found in report.parts] == ["layer_03"]
    assert report.texts == ()
    with pytest.raises(ManifestError, match="no part 'layer_05'"):
        check(package_dir, golden, part="layer_05")


def test_samples_without_texts_check_the_parts_only(package_dir: Path, golden: Golden) -> None:
    report = check(package_dir, replace(golden, traces=()))
    assert (report.first_failure, len(report.parts), report.texts) == (None, len(NAMES), ())


@pytest.mark.parametrize("role", ["layer", "gate", "exit"])
def test_two_swapped_parts_are_both_found_and_the_first_is_named(scratch: Path, golden: Golden, role: str) -> None:
    names = f"graphs/{role}_02.onnx", f"graphs/{role}_03.onnx"
    swap_files(scratch, *names)
    report = check(scratch, golden)
    swap_files(scratch, *names)
    assert failures(report) == [f"{role}_02", f"{role}_03"]
    assert report.first_failure == f"{role}_02"
    assert not any(texts.decisions.ok for texts in report.texts)
    with pytest.raises(ParityError, match=rf"^{role}_02 differs from the golden samples: ") as caught:
        require_parity(report)
    assert caught.value.report is report


def matrices(file: Path) -> list[str]:
    """Names of the weight matrices among the graph's initialisers."""
    return [
        weight.name
        for weight in onnx.load(file).graph.initializer
        if len(weight.dims) >= 2 and weight.data_type == onnx.TensorProto.FLOAT
    ]


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ("embeddings", 3),  # word, position, segment
        ("gate_02", 5),  # W, query, key, value, decision
        ("layer_03", 6),  # query, key, value, output, two of the feed-forward network
        ("exit_04", 6),  # W, query, key, value, dense, classes
    ],
)
def test_any_weight_matrix_one_percent_off_is_blamed_on_its_part(
    scratch: Path, golden: Golden, part: str, count: int
) -> None:
    file = scratch / "graphs" / f"{part}.onnx"
    original = file.read_bytes()
    names = matrices(file)
    assert len(names) == count
    blamed = {}
    for name in names:
        change_weight(scratch, part, name, lambda weight: weight * 1.01)
        report = check(scratch, golden)
        blamed[name] = (report.first_failure, failures(report))
        file.write_bytes(original)
        refresh_hashes(scratch)
    assert blamed == {name: (part, [part]) for name in names}


def test_a_nan_that_only_a_later_probe_meets_is_not_overlooked(package_dir: Path, golden: Golden) -> None:
    hidden_lbsh = golden.probes[1].hidden_lbsh.copy()
    hidden_lbsh[1, -1, 0, 0] = np.nan
    report = check(
        package_dir, replace(golden, probes=(golden.probes[0], replace(golden.probes[1], hidden_lbsh=hidden_lbsh)))
    )
    assert report.first_failure == "layer_01"


def test_a_wrong_mask_is_found(package_dir: Path, golden: Golden) -> None:
    probe = golden.probes[1]
    assert (probe.mask_b11s == -10000.0).any()
    wrong = replace(probe, mask_b11s=np.zeros_like(probe.mask_b11s))
    assert check(package_dir, replace(golden, probes=(golden.probes[0], wrong))).first_failure == "embeddings"


def test_other_decisions_fail_although_every_part_agrees(package_dir: Path, golden: Golden) -> None:
    report = check(package_dir, golden, policy=Policy(exit_threshold=0.9))
    assert failures(report) == []
    assert report.first_failure == "texts one by one"
    with pytest.raises(ParityError, match=r"^texts one by one: answers differ .* every part agrees$") as caught:
        require_parity(report)
    assert (caught.value.exit_code, caught.value.report) == (3, report)
    assert "smartbert-verify" in caught.value.hint


def test_every_file_is_hashed(package_copy: Path) -> None:
    # 13 graphs, 2 of the tokenizer, 2 golden ones.
    assert check_files(open_package(package_copy)) == 17
    for name in ("graphs/gate_04.onnx", "golden/texts.jsonl"):
        flip_byte(package_copy / name, 100)
        with pytest.raises(IntegrityError, match=f"^{name} does not match the manifest"):
            check_files(open_package(package_copy))
        flip_byte(package_copy / name, 100)
    assert check_files(open_package(package_copy)) == 17
