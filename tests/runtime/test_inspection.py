"""inspection: what a folder holds, counted without running a text, and its operator coverage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smartbert_runtime.errors import IntegrityError, ProviderError
from smartbert_runtime.inspection import Inspection, VariantFacts, inspect_package
from smartbert_runtime.package.open import open_package
from smartbert_runtime.sessions.providers import CPU
from tests.conftest import LABELS, LAYERS
from tests.package_folders import VARIANTS, flip_byte

PHONES = ["CoreMLExecutionProvider (MLProgram)", "CoreMLExecutionProvider (NeuralNetwork)", "NnapiExecutionProvider"]


@pytest.fixture(scope="module")
def found(layouts_dir: Path) -> Inspection:
    return inspect_package(open_package(layouts_dir))


def variant(found: Inspection, name: str) -> VariantFacts:
    (facts,) = (facts for facts in found.variants if facts.variant.name == name)
    return facts


def test_model_facts(found: Inspection, layouts_dir: Path) -> None:
    manifest = open_package(layouts_dir).manifest
    assert (found.family, found.layers, found.hidden_size, found.max_length) == ("bert", LAYERS, 32, 24)
    assert (found.labels, found.fixed_shape, found.notes) == (LABELS, None, ())
    assert found.checkpoint_sha256 == manifest.provenance.checkpoint_sha256
    assert set(found.packages) == {"smartbert", "torch", "transformers", "onnx"}


def test_variants_with_presets_and_parts(found: Inspection, layouts_dir: Path) -> None:
    manifest = open_package(layouts_dir).manifest
    assert [facts.variant.name for facts in found.variants] == VARIANTS
    for facts in found.variants:
        assert list(facts.presets) == ["default", "full-depth"]
        assert facts.presets["default"].exit_threshold == 0.5 and facts.presets["full-depth"].no_exit
        parts = [component.name for component in manifest.in_variant(facts.variant.name)]
        assert [part.part for part in facts.parts] == parts
    assert [part.part for part in variant(found, "single-fp32").parts] == ["model"]


def test_part_facts(found: Inspection, layouts_dir: Path) -> None:
    by_name = {part.part: part for part in variant(found, "fused-fp32").parts}
    block = by_name["block_02"]
    assert (block.role, block.file) == ("block", "graphs/block_02.onnx")
    assert block.inputs == ("hidden (batch,sequence,32)", "mask (batch,1,1,sequence)")
    assert block.outputs == ("hidden_next (batch,sequence,32)", "logits (batch,3)", "skip_logit (batch)")
    assert block.bytes == (layouts_dir / block.file).stat().st_size
    assert by_name["block_04"].outputs == ("hidden_next (batch,sequence,32)", "logits (batch,3)")


@pytest.mark.parametrize("name", VARIANTS)
def test_variant_size(found: Inspection, layouts_dir: Path, name: str) -> None:
    manifest = open_package(layouts_dir).manifest
    entries = [component.files[name] for component in manifest.in_variant(name)]
    files = {entry.file for entry in entries}
    assert variant(found, name).bytes == sum((layouts_dir / file).stat().st_size for file in files)


def test_coverage_of_every_part(found: Inspection) -> None:
    for facts in found.variants:
        for part in facts.parts:
            assert list(part.coverage) == PHONES
            for taken, nodes in part.coverage.values():
                assert 0 <= taken <= nodes and nodes > 0


def test_placements_with_providers(found: Inspection, package_dir: Path) -> None:
    assert {part.placement == {} for facts in found.variants for part in facts.parts} == {True}
    (facts,) = inspect_package(open_package(package_dir), providers=[CPU]).variants
    for part in facts.parts:
        assert list(part.placement) == [CPU] and part.placement[CPU] > 5


def test_loaded_files_are_hashed(package_copy: Path) -> None:
    flip_byte(package_copy / "graphs" / "gate_03.onnx", 500)
    package = open_package(package_copy)
    inspect_package(package)
    with pytest.raises(IntegrityError, match=r"^graphs/gate_03\.onnx does not match"):
        inspect_package(package, providers=[CPU])


def test_unknown_provider_is_refused(package_dir: Path) -> None:
    with pytest.raises(ProviderError, match="no provider 'WarpDriveExecutionProvider'"):
        inspect_package(open_package(package_dir), providers=["WarpDriveExecutionProvider"])


def test_as_dict_is_json(found: Inspection) -> None:
    document = json.loads(json.dumps(found.as_dict()))
    assert [facts["variant"]["name"] for facts in document["variants"]] == VARIANTS
    assert document["variants"][0]["parts"][0]["inputs"][0] == "input_ids (batch,sequence)"
