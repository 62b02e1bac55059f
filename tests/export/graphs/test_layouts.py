"""Every layout in every precision in one folder: each is correct, and bad options are named errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_export.parts.signatures import LAYOUTS
from smartbert_export.precisions import PRECISIONS
from smartbert_runtime import SmartBert
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.package.manifest import Manifest
from smartbert_runtime.package.open import open_package
from smartbert_runtime.package.policy_file import parse_policy_file
from smartbert_runtime.parity.golden import read_golden
from smartbert_runtime.parity.verify import check_files, verify
from smartbert_runtime.sessions.sessions import Sessions
from tests.conftest import SENTENCES
from tests.export.folder_contents import contents
from tests.export.reporters import NoSteps
from tests.package_folders import export_layouts

NAMES = [f"{layout}-{precision}" for layout in LAYOUTS for precision in PRECISIONS]
DEFAULT = Policy(skip_threshold=0.5, exit_threshold=0.5)


@pytest.fixture(scope="module")
def manifest(variants_dir: Path) -> Manifest:
    return open_package(variants_dir).manifest


def test_manifest_variants(manifest: Manifest) -> None:
    assert [variant.name for variant in manifest.variants] == NAMES
    assert manifest.variant().name == "separate-fp32"
    options = manifest.provenance.options
    assert (options["layout"], options["precision"]) == (list(LAYOUTS), list(PRECISIONS))


def test_parts_of_each_layout(manifest: Manifest) -> None:
    layers = (1, 2, 3, 4)
    parts = {
        "separate": {"embeddings", *(f"{role}_0{layer}" for layer in layers for role in ("gate", "layer", "exit"))},
        "fused": {"embeddings", *(f"{role}_0{layer}" for layer in layers for role in ("gate", "block")), "exit_04"},
        "single": {"model"},
    }
    for variant in manifest.variants:
        assert {component.name for component in manifest.in_variant(variant.name)} == parts[variant.layout]


def test_manifest_is_in_running_order(manifest: Manifest) -> None:
    roles = ["gate", "layer", "exit", "block"]
    expected = ["embeddings", *(f"{role}_0{layer}" for layer in (1, 2, 3, 4) for role in roles), "model"]
    # Of one layer, exit and block do not meet.
    assert [component.name for component in manifest.components] == expected


def test_presets_of_every_variant(variants_dir: Path) -> None:
    policies = parse_policy_file((variants_dir / "policy.json").read_text(encoding="utf-8"))
    assert list(policies.variants) == NAMES
    for presets in policies.variants.values():
        assert presets == {"default": DEFAULT, "full-depth": DEFAULT.at_full_depth()}


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_verifies(variants_dir: Path, name: str) -> None:
    package = open_package(variants_dir)
    check_files(package)
    sessions = Sessions(package, package.manifest.variant(*name.split("-")))
    report = verify(sessions, read_golden(package), DEFAULT, oracle="the recording")
    assert (report.variant, report.first_failure) == (name, None)
    assert len(report.texts) == (1 if name.startswith("single") else 2)
    for check in report.texts:
        assert check.decisions.texts == len(SENTENCES)
        assert check.decisions.exact == name.endswith("fp32")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fp32_layouts_match_pytorch(variants_dir: Path, model: SmartBertForSequenceClassification, layout: str) -> None:
    opened = SmartBert.load(variants_dir, layout=layout)
    expected = trace_rows(model, opened.tokenizer.encode(SENTENCES), DEFAULT)
    for batch_size in (1, 24):
        found = [prediction.trace for prediction in opened.classify(SENTENCES, batch_size=batch_size)]
        for one, other in zip(found, expected, strict=True):
            assert one.decisions() == other.decisions()
            np.testing.assert_allclose(one.logits_c, other.logits_c, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_layouts_agree_on_labels(variants_dir: Path, precision: str) -> None:
    """Quantized, layouts differ by which parts stayed fp32: labels have to agree."""
    labels = [
        [p.label for p in SmartBert.load(variants_dir, layout=layout, precision=precision).classify(SENTENCES)]
        for layout in LAYOUTS
    ]
    for other in labels[1:]:
        assert sum(one == two for one, two in zip(labels[0], other, strict=True)) >= len(SENTENCES) - 1


def test_graphs_match_one_layout_export(variants_dir: Path, package_dir: Path, manifest: Manifest) -> None:
    alone = contents(package_dir)
    same = {entry.file for c in manifest.components for name, entry in c.files.items() if name == "separate-fp32"}
    assert len(same) == 13
    assert [file for file in same if (variants_dir / file).read_bytes() != alone[file]] == []


def test_no_file_holds_paths(variants_dir: Path) -> None:
    repository = str(Path(__file__).resolve().parents[2])
    for file, content in contents(variants_dir).items():
        for place in (repository, str(variants_dir.parent), "site-packages", "Traceback"):
            assert place.encode() not in content, f"{file} holds {place}"
    assert not (variants_dir / "work").exists()


def test_two_exports_are_byte_equal(layouts_dir: Path, checkpoint_dir: Path, tmp_path: Path) -> None:
    export_layouts(tmp_path / "again", checkpoint_dir, layouts_dir.parent / "check.txt")
    one, other = contents(layouts_dir), contents(tmp_path / "again")
    assert sorted(one) == sorted(other)
    assert [file for file in one if one[file] != other[file]] == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layouts": ("twisted",)}, "unknown layout 'twisted'"),
        ({"layouts": ("fused", "Fused")}, "unknown layout 'Fused'"),
        ({"layouts": ("fused", "single", "fused")}, "a layout must be named, and only once"),
        ({"layouts": ()}, "a layout must be named, and only once"),
        ({"precisions": ("fp16",)}, "unknown precision 'fp16'"),
        ({"precisions": ("int8", "int8")}, "a precision must be named, and only once"),
        ({"precisions": ()}, "a precision must be named, and only once"),
        ({"target": "sparc"}, "unknown target 'sparc'"),
        ({"opset": 17}, "unsupported opset 17"),
        ({"opset": 22}, "unsupported opset 22"),
        ({"fixed_shape": (0, 16)}, "a fixed shape of 0,16 holds no text"),
        ({"fixed_shape": (-1, 16)}, "a fixed shape of -1,16 holds no text"),
        ({"fixed_shape": (1, 1)}, "a fixed shape of 1,1 holds no text"),
        ({"fixed_shape": (1, 0)}, "a fixed shape of 1,0 holds no text"),
        ({"layouts": ("single",), "fixed_shape": (2, 16)}, "one text a call, not batches of 2"),
    ],
)
def test_bad_options(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        GraphOptions(**settings)
    assert message in str(error.value)
    assert error.value.hint


def test_first_variant_is_default() -> None:
    options = GraphOptions(layouts=("single", "separate"), precisions=("int8", "fp32"))
    assert [variant.name for variant in options.variants()] == [
        "single-int8",
        "single-fp32",
        "separate-int8",
        "separate-fp32",
    ]


def test_fixed_shape_longer_than_model(checkpoint_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("mine", encoding="utf-8")

    options = ExportOptions(graphs=GraphOptions(fixed_shape=(1, 25)), overwrite=True)
    with pytest.raises(ConfigError, match=r"a fixed shape of 25 tokens is longer than the model's 24") as error:
        export_package(checkpoint_dir, tmp_path / "out", options, reporter=NoSteps())
    assert "--fixed-shape 1,24" in error.value.hint
    assert contents(tmp_path) == {"out/manifest.json": b"mine"}
