"""contenders: which variants are chosen, their ways, and what each needs on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from smartbert_bench.conditions import BenchSettings
from smartbert_bench.contenders.contender import choose_variants, package_contenders, rival_providers
from smartbert_runtime.errors import ConfigError, ManifestError
from smartbert_runtime.package.open import open_package
from tests.bench.conftest import QUICK


@pytest.mark.parametrize(
    ("layouts", "precisions", "names"),
    [
        ([], [], "separate-fp32 separate-int8 fused-fp32 fused-int8 single-fp32 single-int8"),
        (["fused"], [], "fused-fp32 fused-int8"),
        ([], ["int8"], "separate-int8 fused-int8 single-int8"),
        (["separate", "single"], ["fp32"], "separate-fp32 single-fp32"),
    ],
)
def test_variants_are_chosen_by_layout_and_precision(
    layouts_dir: Path, layouts: list[str], precisions: list[str], names: str
) -> None:
    manifest = open_package(layouts_dir).manifest
    chosen = choose_variants(manifest, layouts, precisions)
    assert {variant.name for variant in chosen} == set(names.split())


@pytest.mark.parametrize(
    ("layouts", "precisions"),
    [(["fused"], []), ([], ["int8"]), (["separate", "fused"], ["fp32"]), (["single"], ["int4"])],
)
def test_what_the_package_does_not_hold_is_named(package_dir: Path, layouts: list[str], precisions: list[str]) -> None:
    with pytest.raises(ManifestError, match="holds no variant") as caught:
        choose_variants(open_package(package_dir).manifest, layouts, precisions)
    assert caught.value.hint == "it holds: separate-fp32"


def test_every_variant_has_two_ways_and_one_process(layouts_dir: Path) -> None:
    package = open_package(layouts_dir)
    contenders = package_contenders(package, package.manifest.variants, QUICK)
    names = [variant.name for variant in package.manifest.variants]
    assert [contender.name for contender in contenders] == [
        name for variant in names for name in (variant, f"{variant}, all layers")
    ]
    assert [contender.worker.name for contender in contenders[::2]] == names
    assert [contender.worker for contender in contenders[::2]] == [contender.worker for contender in contenders[1::2]]


def test_a_preset_that_is_not_there_is_named(layouts_dir: Path) -> None:
    package = open_package(layouts_dir)
    with pytest.raises(ConfigError, match="no preset 'fast'"):
        package_contenders(package, package.manifest.variants, replace(QUICK, preset="fast"))


def test_a_provider_for_one_role_is_nothing_that_a_rival_has() -> None:
    assert rival_providers(["A", "B"]) == ("A", "B")
    with pytest.raises(ConfigError, match="layer=A"):
        rival_providers(["layer=A", "B"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"repeats": 0}, "repeats must be 1 or more, not 0"),
        ({"starts": -1}, "starts must be 0 or more, not -1"),
        ({"threads": 0}, "threads must be 1 or more, not 0"),
        ({"batch_sizes": (8, 1)}, "batch sizes must be 2 or more and differ, not 8, 1"),
        ({"batch_sizes": (8, 8)}, "batch sizes must be 2 or more and differ, not 8, 8"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(change: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BenchSettings(**{"preset": "default", "providers": (), "threads": 1, **change})  # type: ignore[arg-type]
