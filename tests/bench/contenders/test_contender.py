"""Contenders of a package: which variants are chosen, their modes, and settings that are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from smartbert_bench.contenders.contender import rival_providers
from smartbert_bench.contenders.package_variants import choose_variants, package_contenders
from smartbert_bench.settings import BenchSettings
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_runtime.errors import ConfigError, ManifestError
from smartbert_runtime.package.open import Package, open_package
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
def test_variants_by_layout_and_precision(
    package: Package, layouts: list[str], precisions: list[str], names: str
) -> None:
    (one,) = package.manifest.variants
    variants = tuple(
        replace(one, name=f"{layout}-{precision}", layout=layout, precision=precision)
        for layout in ("separate", "fused", "single")
        for precision in ("fp32", "int8")
    )
    chosen = choose_variants(replace(package.manifest, variants=variants), layouts, precisions)
    assert {variant.name for variant in chosen} == set(names.split())


@pytest.mark.parametrize(
    ("layouts", "precisions"),
    [(["fused"], []), ([], ["int8"]), (["separate", "fused"], ["fp32"]), (["single"], ["int4"])],
)
def test_missing_variant_is_refused(package: Package, layouts: list[str], precisions: list[str]) -> None:
    with pytest.raises(ManifestError, match="holds no variant") as caught:
        choose_variants(package.manifest, layouts, precisions)
    assert caught.value.hint == "it holds: separate-fp32"


def test_two_modes_share_a_process(checkpoint_dir: Path, tmp_path: Path) -> None:
    options = ExportOptions(graphs=GraphOptions(layouts=("separate", "fused")))
    export_package(checkpoint_dir, tmp_path / "out", options)
    package = open_package(tmp_path / "out")
    contenders = package_contenders(package, package.manifest.variants, QUICK)
    names = [variant.name for variant in package.manifest.variants]
    assert [contender.name for contender in contenders] == [
        name for variant in names for name in (variant, f"{variant}, full depth")
    ]
    assert [contender.worker.name for contender in contenders[::2]] == names
    assert [contender.worker for contender in contenders[::2]] == [contender.worker for contender in contenders[1::2]]


def test_unknown_preset_is_refused(package: Package) -> None:
    with pytest.raises(ConfigError, match="no preset 'fast'"):
        package_contenders(package, package.manifest.variants, replace(QUICK, preset="fast"))


def test_role_provider_of_rival_is_refused() -> None:
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
def test_invalid_settings_are_refused(change: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BenchSettings(**{"preset": "default", "providers": (), "threads": 1, **change})  # type: ignore[arg-type]
