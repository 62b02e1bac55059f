"""parity.verify: a good package passes, and a wrong weight is blamed on exactly the part that holds it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import IntegrityError, ManifestError, ParityError
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import Golden, read_golden
from smartbert_runtime.parity.verify import QUANTIZED_TOLERANCE, VerifyReport, check_files, require_parity, verify
from smartbert_runtime.reporting import Reporter
from smartbert_runtime.sessions.sessions import Sessions
from tests.conftest import SENTENCES
from tests.helpers import edit_manifest, refresh_hashes, swap_files
from tests.package_folders import LAYOUTS, VARIANTS, Document, flip_byte, scale_weight

ORACLE = "the golden samples"
POLICY = Policy(exit_threshold=0.5)
NAMES = ["embeddings", *(f"{role}_{index:02d}" for index in range(1, 5) for role in ("gate", "layer", "exit"))]


def check(
    folder: Path, golden: Golden, *, policy: Policy = POLICY, part: str | None = None, variant: str = "separate-fp32"
) -> VerifyReport:
    package = open_package(folder)
    sessions = Sessions(package, package.manifest.variant(*variant.split("-")))
    return verify(sessions, golden, policy, oracle=ORACLE, part=part)


class Steps(Reporter):
    """Keeps every step."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def step(self, text: str) -> None:
        self.steps.append(text)


def failures(report: VerifyReport) -> list[str]:
    return [found.part for found in report.parts if not found.difference.ok]


@pytest.fixture(scope="module")
def golden(package_dir: Path) -> Golden:
    return read_golden(open_package(package_dir))


def test_package_passes(package_dir: Path, golden: Golden) -> None:
    package = open_package(package_dir)
    reporter = Steps()
    sessions = Sessions(package, package.manifest.variant())
    report = verify(sessions, golden, package.manifest.golden.policy, oracle=ORACLE, reporter=reporter)
    assert report.first_failure is None
    assert (report.variant, report.oracle) == ("separate-fp32", ORACLE)
    assert [found.part for found in report.parts] == NAMES
    assert reporter.steps == [f"checking {name} (separate-fp32)" for name in NAMES]
    assert [texts.mode for texts in report.texts] == ["texts one by one", "texts in batches of 32"]
    for texts in report.texts:
        assert (texts.decisions.texts, texts.decisions.different, texts.decisions.near) == (len(SENTENCES), (), ())
        assert texts.decisions.label_agreement == 1.0
    assert require_parity(report) is report


def test_more_texts_than_a_batch(package_dir: Path, golden: Golden) -> None:
    rows = [*range(len(SENTENCES))] * 3
    repeated = replace(golden, tokens=golden.tokens.rows(rows), traces=tuple(golden.traces[row] for row in rows))
    report = check(package_dir, repeated)
    assert report.first_failure is None
    assert [texts.decisions.texts for texts in report.texts] == [72, 72]


def test_one_part(package_dir: Path, golden: Golden) -> None:
    report = check(package_dir, golden, part="layer_03")
    assert [found.part for found in report.parts] == ["layer_03"]
    assert report.texts == ()
    with pytest.raises(ManifestError, match="no part 'layer_05'"):
        check(package_dir, golden, part="layer_05")


def test_samples_without_texts(package_dir: Path, golden: Golden) -> None:
    report = check(package_dir, replace(golden, traces=()))
    assert (report.first_failure, len(report.parts), report.texts) == (None, len(NAMES), ())


def test_nan_in_later_probe(package_dir: Path, golden: Golden) -> None:
    hidden_lbsh = golden.probes[1].hidden_lbsh.copy()
    hidden_lbsh[1, -1, 0, 0] = np.nan
    report = check(
        package_dir, replace(golden, probes=(golden.probes[0], replace(golden.probes[1], hidden_lbsh=hidden_lbsh)))
    )
    assert report.first_failure == "layer_01"


def test_wrong_mask_fails(package_dir: Path, golden: Golden) -> None:
    probe = golden.probes[1]
    assert (probe.mask_b11s == -10000.0).any()
    wrong = replace(probe, mask_b11s=np.zeros_like(probe.mask_b11s))
    assert check(package_dir, replace(golden, probes=(golden.probes[0], wrong))).first_failure == "embeddings"


def test_other_decisions_fail(package_dir: Path, golden: Golden) -> None:
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


# Layouts and precisions


MODES = {
    "separate": ["texts one by one", "texts in batches of 32"],
    "fused": ["texts one by one", "texts in batches of 32"],
    "single": ["model.onnx, text by text"],
}
BLOCK_PARTS = ["embeddings", *(f"{role}_{index:02d}" for index in range(1, 5) for role in ("gate", "block"))]


@pytest.fixture(scope="module")
def layouts_golden(layouts_dir: Path) -> Golden:
    return read_golden(open_package(layouts_dir))


@pytest.fixture(scope="module")
def layouts_scratch(layouts_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One copy for many small damages; each test restores what it changed."""
    yield Path(shutil.copytree(layouts_dir, tmp_path_factory.mktemp("layouts") / "out"))


def layer_files(folder: Path, variant: str, role: str = "layer") -> dict[str, str]:
    """Part -> file, for parts with this role whose file really is in the variant's precision."""
    components = open_package(folder).manifest.in_variant(variant)
    precision = variant.split("-")[1]
    return {
        component.name: component.files[variant].file
        for component in components
        if component.role == role and (precision == "fp32" or f".{precision}." in component.files[variant].file)
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_passes(layouts_dir: Path, layouts_golden: Golden, variant: str) -> None:
    report = check(layouts_dir, layouts_golden, variant=variant)
    layout, precision = variant.split("-")
    assert (report.first_failure, report.variant) == (None, variant)
    parts = {"separate": NAMES, "fused": [*BLOCK_PARTS[:-1], "exit_04", BLOCK_PARTS[-1]], "single": []}[layout]
    assert sorted(found.part for found in report.parts) == sorted(parts)
    assert [texts.mode for texts in report.texts] == MODES[layout]
    for texts in report.texts:
        assert texts.decisions.exact == (precision == "fp32")
        if precision == "fp32":
            assert texts.decisions.different == ()


def test_quantized_tolerance(layouts_dir: Path, layouts_golden: Golden) -> None:
    allowed = {
        variant: {
            found.part: found.difference.tolerance
            for found in check(layouts_dir, layouts_golden, variant=variant).parts
        }
        for variant in ("separate-fp32", "separate-int8", "fused-fp32")
    }
    assert max(allowed["separate-fp32"].values()) < 1e-4
    assert max(allowed["fused-fp32"].values()) < 1e-3
    for part, file in layer_files(layouts_dir, "separate-int8").items():
        assert ".int8." in file and allowed["separate-int8"][part] >= QUANTIZED_TOLERANCE["int8"]
    # A block has a wider tolerance than a layer, because its heads read the layer's output.
    assert allowed["fused-fp32"]["block_02"] > allowed["separate-fp32"]["layer_02"]
    assert allowed["fused-fp32"]["gate_01"] == allowed["separate-fp32"]["gate_01"]


def test_fp32_part_in_int8_variant(layouts_copy: Path, layouts_golden: Golden) -> None:
    def refuse(document: Document) -> None:
        (exit_head,) = (entry for entry in document["components"] if entry["name"] == "exit_02")
        exit_head["files"]["separate-int8"] = exit_head["files"]["separate-fp32"]

    scale_weight(layouts_copy, "exit_02", "read.take.0.1.weight", 1.01)
    assert check(layouts_copy, layouts_golden, variant="separate-int8").first_failure is None
    edit_manifest(layouts_copy, refuse)
    assert check(layouts_copy, layouts_golden, variant="separate-int8").first_failure == "exit_02"


def test_swapped_int8_layers_fail(layouts_scratch: Path, layouts_golden: Golden) -> None:
    layers = layer_files(layouts_scratch, "separate-int8")
    assert len(layers) >= 2
    (first, one), *_, (last, other) = layers.items()
    swap_files(layouts_scratch, one, other)
    reports = {variant: check(layouts_scratch, layouts_golden, variant=variant) for variant in VARIANTS}
    swap_files(layouts_scratch, one, other)
    assert failures(reports["separate-int8"]) == [first, last]
    with pytest.raises(ParityError, match=f"^{first} differs from the golden samples: ") as caught:
        require_parity(reports["separate-int8"])
    assert caught.value.exit_code == 3
    others = [name for name in VARIANTS if name != "separate-int8"]
    assert [reports[name].first_failure for name in others] == [None] * 5


def matrices(file: Path) -> list[str]:
    """Names of the graph's weight matrices."""
    return [
        weight.name
        for weight in onnx.load(file).graph.initializer
        if len(weight.dims) >= 2 and weight.data_type == onnx.TensorProto.FLOAT
    ]


def test_damaged_block_weights_fail(layouts_scratch: Path, layouts_golden: Golden) -> None:
    file = layouts_scratch / "graphs" / "block_02.onnx"
    original = file.read_bytes()
    names = matrices(file)
    # The layer's six; W of both heads in one, five of what they read, the gate's decision, the classes; and the matrix
    # that keeps the heads apart, whose numbers mean "not this one", so that one percent makes no difference.
    apart = "heads.read.others_1a1r"
    assert len(names) == 15 and apart in names
    blamed = {}
    for name in names:
        scale_weight(layouts_scratch, "block_02", name, 0.0 if name == apart else 1.01)
        report = check(layouts_scratch, layouts_golden, variant="fused-fp32")
        blamed[name] = (report.first_failure, failures(report))
        file.write_bytes(original)
        refresh_hashes(layouts_scratch)
    assert blamed == {name: ("block_02", ["block_02"]) for name in names}


def test_swapped_blocks_fail(layouts_scratch: Path, layouts_golden: Golden) -> None:
    names = "graphs/block_01.onnx", "graphs/block_03.onnx"
    swap_files(layouts_scratch, *names)
    report = check(layouts_scratch, layouts_golden, variant="fused-fp32")
    swap_files(layouts_scratch, *names)
    assert failures(report) == ["block_01", "block_03"]


@pytest.mark.parametrize(
    ("weight", "factor"),
    [
        ("block_02/heads.classify.weight", -1.0),
        ("gate_01/read.take.0.weight", -1.0),
        ("block_03/heads.read.take.1.weight", -1.0),
        ("block_02/layer.attention.self.value.weight", 1.01),
        ("block_02/heads.read.take.0.1.weight", 1.01),
    ],
)
def test_damaged_single_graph_fails(layouts_scratch: Path, layouts_golden: Golden, weight: str, factor: float) -> None:
    file = layouts_scratch / "graphs" / "model.onnx"
    original = file.read_bytes()
    scale_weight(layouts_scratch, "model", weight, factor)
    report = check(layouts_scratch, layouts_golden, variant="single-fp32")
    others = [check(layouts_scratch, layouts_golden, variant=f"{name}-fp32").first_failure for name in LAYOUTS[:2]]
    file.write_bytes(original)
    refresh_hashes(layouts_scratch)
    assert report.parts == () and report.first_failure == "model.onnx, text by text"
    assert others == [None, None]
    with pytest.raises(ParityError, match=r"^model\.onnx, text by text: answers differ from the golden samples"):
        require_parity(report)


def test_other_policy_fails_single(layouts_dir: Path, layouts_golden: Golden) -> None:
    report = check(layouts_dir, layouts_golden, variant="single-fp32", policy=Policy(exit_threshold=0.9))
    assert report.first_failure == "model.onnx, text by text"


def test_every_graph_is_hashed(layouts_copy: Path) -> None:
    files = len(list((layouts_copy / "graphs").iterdir()))
    assert check_files(open_package(layouts_copy)) == files + 4
    flip_byte(layouts_copy / "graphs" / "model.onnx", 100)
    with pytest.raises(IntegrityError, match=r"^graphs/model\.onnx does not match the manifest"):
        check_files(open_package(layouts_copy))
