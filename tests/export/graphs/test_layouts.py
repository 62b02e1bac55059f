"""Every layout in every precision in one folder: all are right, weights are shared, and nonsense is a named error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_export.parts.signatures import LAYOUTS
from smartbert_export.quantize.weights import PRECISIONS
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
from tests.export.conftest import EVERY_VARIANT
from tests.export.test_package import contents

NAMES = [f"{layout}-{precision}" for layout in LAYOUTS for precision in PRECISIONS]
DEFAULT = Policy(skip_threshold=0.5, exit_threshold=0.5)


@pytest.fixture(scope="module")
def manifest(variants_dir: Path) -> Manifest:
    return open_package(variants_dir).manifest


def test_the_manifest_lists_every_variant_the_first_as_default(manifest: Manifest) -> None:
    assert [variant.name for variant in manifest.variants] == NAMES
    assert manifest.variant().name == "separate-fp32"
    options = manifest.provenance.options
    assert (options["layout"], options["precision"]) == (list(LAYOUTS), list(PRECISIONS))


def test_each_variant_names_the_parts_of_its_layout(manifest: Manifest) -> None:
    layers = (1, 2, 3, 4)
    parts = {
        "separate": {"embeddings", *(f"{role}_0{layer}" for layer in layers for role in ("gate", "layer", "exit"))},
        "fused": {"embeddings", *(f"{role}_0{layer}" for layer in layers for role in ("gate", "block")), "exit_04"},
        "single": {"model"},
    }
    for variant in manifest.variants:
        assert {component.name for component in manifest.in_variant(variant.name)} == parts[variant.layout]


def test_parts_stand_in_the_manifest_as_a_text_meets_them(manifest: Manifest) -> None:
    roles = ["gate", "layer", "exit", "block"]
    expected = ["embeddings", *(f"{role}_0{layer}" for layer in (1, 2, 3, 4) for role in roles), "model"]
    # Of one layer, exit and block do not meet.
    assert [component.name for component in manifest.components] == expected


def test_every_variant_has_both_presets(variants_dir: Path) -> None:
    policies = parse_policy_file((variants_dir / "policy.json").read_text(encoding="utf-8"))
    assert list(policies.variants) == NAMES
    for presets in policies.variants.values():
        assert presets == {"default": DEFAULT, "full-depth": DEFAULT.at_full_depth()}


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_passes_verification(variants_dir: Path, name: str) -> None:
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
def test_in_fp32_every_layout_decides_as_pytorch_does(
    variants_dir: Path, model: SmartBertForSequenceClassification, layout: str
) -> None:
    opened = SmartBert.load(variants_dir, layout=layout)
    expected = trace_rows(model, opened.tokenizer.encode(SENTENCES), DEFAULT)
    for batch_size in (1, 24):
        found = [prediction.trace for prediction in opened.classify(SENTENCES, batch_size=batch_size)]
        for one, other in zip(found, expected, strict=True):
            assert one.decisions() == other.decisions()
            np.testing.assert_allclose(one.logits_c, other.logits_c, atol=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_variants_texts_get_the_same_answer_in_the_other_layouts(variants_dir: Path, precision: str) -> None:
    """Quantized, layouts differ by which parts stayed fp32: labels have to agree."""
    labels = [
        [p.label for p in SmartBert.load(variants_dir, layout=layout, precision=precision).classify(SENTENCES)]
        for layout in LAYOUTS
    ]
    for other in labels[1:]:
        assert sum(one == two for one, two in zip(labels[0], other, strict=True)) >= len(SENTENCES) - 1


def apart(package: Path, file: str) -> bytes:
    """A graph as it would be exported alone, with all its weights."""
    model = onnx.load(package / file)
    for tensor in model.graph.initializer:
        tensor.ClearField("data_location")
    return bytes(model.SerializeToString(deterministic=True))


def files(manifest: Manifest, layout: str) -> set[str]:
    return {
        entry.file
        for component in manifest.components
        for variant, entry in component.files.items()
        if variant.startswith(layout)
    }


def test_with_its_weights_a_graph_is_that_of_an_export_of_one_layout(
    variants_dir: Path, package_dir: Path, manifest: Manifest
) -> None:
    alone = contents(package_dir)
    same = {entry.file for c in manifest.components for name, entry in c.files.items() if name == "separate-fp32"}
    assert len(same) == 13
    assert [file for file in same if apart(variants_dir, file) != alone[file]] == []


def test_the_folder_is_less_than_half_of_the_layouts_exported_apart(variants_dir: Path, manifest: Manifest) -> None:
    total = sum(len(apart(variants_dir, file)) for layout in LAYOUTS for file in files(manifest, layout))
    together = sum(file.stat().st_size for file in (variants_dir / "graphs").iterdir())
    assert together < 0.45 * total


def test_what_is_stored_twice_are_small_weights_only(variants_dir: Path, manifest: Manifest) -> None:
    stored: dict[bytes, str] = {}
    for entry in manifest.files():
        if not entry.file.endswith(".onnx"):
            continue
        graph = onnx.load(variants_dir / entry.file, load_external_data=False).graph
        for tensor in graph.initializer:
            if len(tensor.raw_data) >= 1024:
                key = bytes(repr((tensor.data_type, list(tensor.dims))), "ascii") + tensor.raw_data
                assert key not in stored, f"{tensor.name} of {entry.file} lies in {stored.get(key)} too"
                stored[key] = entry.file


def test_no_graph_says_where_it_was_made(variants_dir: Path) -> None:
    repository = str(Path(__file__).resolve().parents[2])
    for file, content in contents(variants_dir).items():
        for place in (repository, str(variants_dir.parent), "site-packages", "Traceback"):
            assert place.encode() not in content, f"{file} holds {place}"
    assert not (variants_dir / "work").exists()


def test_two_exports_are_byte_equal(variants_dir: Path, checkpoint_dir: Path, tmp_path: Path) -> None:
    export_package(checkpoint_dir, tmp_path / "again", EVERY_VARIANT)
    one, other = contents(variants_dir), contents(tmp_path / "again")
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
def test_options_that_make_no_sense_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        GraphOptions(**settings)
    assert message in str(error.value)
    assert error.value.hint


def test_the_first_layout_and_precision_given_are_the_default() -> None:
    options = GraphOptions(layouts=("single", "separate"), precisions=("int8", "fp32"))
    assert [variant.name for variant in options.variants()] == [
        "single-int8",
        "single-fp32",
        "separate-int8",
        "separate-fp32",
    ]


def test_a_fixed_shape_longer_than_the_model_is_named_before_anything_is_touched(
    checkpoint_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("mine", encoding="utf-8")

    def too_late(step: str) -> None:
        raise AssertionError(f"not refused at the start: {step}")

    options = ExportOptions(graphs=GraphOptions(fixed_shape=(1, 25)), overwrite=True)
    with pytest.raises(ConfigError, match=r"a fixed shape of 25 tokens is longer than the model's 24") as error:
        export_package(checkpoint_dir, tmp_path / "out", options, say=too_late)
    assert "--fixed-shape 1,24" in error.value.hint
    assert contents(tmp_path) == {"out/manifest.json": b"mine"}
