"""The package's own contenders: its variants, each under its policy and at full depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from smartbert_bench.contenders.contender import PACKAGE, Contender
from smartbert_bench.settings import BenchSettings
from smartbert_bench.workers.package_worker import PackageSpec
from smartbert_bench.workers.process import WorkerSpec
from smartbert_bench.workers.protocol import FULL_DEPTH, POLICY
from smartbert_runtime.package.manifest import DIGEST_FILE, MANIFEST_FILE, POLICY_FILE, Manifest, Variant
from smartbert_runtime.package.open import Package


def choose_variants(manifest: Manifest, layouts: Sequence[str], precisions: Sequence[str]) -> list[Variant]:
    """The variants of these layouts and precisions; no layout or no precision stands for all of them.

    Raises ManifestError for a layout or a precision that no variant has.
    """
    chosen = [
        variant
        for variant in manifest.variants
        if (not layouts or variant.layout in layouts) and (not precisions or variant.precision in precisions)
    ]
    for layout in layouts:
        if layout not in {variant.layout for variant in chosen}:
            manifest.variant(layout, next(iter(precisions), None))  # raises, and lists what there is
    for precision in precisions:
        if precision not in {variant.precision for variant in chosen}:
            manifest.variant(next(iter(layouts), None), precision)
    return chosen


def package_contenders(package: Package, variants: Sequence[Variant], settings: BenchSettings) -> list[Contender]:
    """Each variant under its policy and, where that policy may leave layers out, at full depth.

    Raises ConfigError for a preset that a variant does not have.
    """
    contenders = []
    model, policies = package.manifest.model, package.policies()
    for variant in variants:
        policy = policies.preset(variant.name, settings.preset)
        decides = (model.gates or model.early_exits) and policy != policy.at_full_depth()
        spec = PackageSpec(
            folder=str(package.root),
            layout=variant.layout,
            precision=variant.precision,
            preset=settings.preset,
            providers=settings.providers,
            threads=settings.threads,
        )
        worker = WorkerSpec(name=variant.name, module="smartbert_bench.workers.package_worker", spec=asdict(spec))
        for mode in (POLICY, FULL_DEPTH) if decides else (POLICY,):
            contenders.append(
                Contender(
                    name=variant.name if mode == POLICY else f"{variant.name}, {FULL_DEPTH}",
                    kind=PACKAGE,
                    precision=variant.precision,
                    worker=worker,
                    mode=mode,
                    layers=model.layers,
                    disk_bytes=variant_bytes(package, variant),
                )
            )
    return contenders


def variant_bytes(package: Package, variant: Variant) -> int:
    """The size of every file that this variant needs."""
    manifest = package.manifest
    needed = {component.files[variant.name].file for component in manifest.in_variant(variant.name)}
    needed |= {manifest.tokenizer.tokenizer.file, manifest.tokenizer.settings.file}
    needed |= {MANIFEST_FILE, DIGEST_FILE, POLICY_FILE}
    return sum((package.root / file).stat().st_size for file in needed)
