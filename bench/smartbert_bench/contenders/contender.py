"""Who is measured: each contender's name, the process that answers for it, and what it weighs on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from smartbert_bench.conditions import BenchSettings
from smartbert_bench.workers.graph_worker import PlainSpec
from smartbert_bench.workers.package_worker import ALL_LAYERS, POLICY, PackageSpec
from smartbert_bench.workers.process import WorkerSpec
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.package.manifest import DIGEST_FILE, MANIFEST_FILE, POLICY_FILE, Manifest, Variant
from smartbert_runtime.package.open import Package

PACKAGE, PLAIN, OPTIMUM = "package", "plain", "optimum"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One line of the report. Two of them may share a worker and differ in the way that it is asked.

    layers: what one text takes when the worker does not say.
    """

    name: str
    kind: str
    precision: str
    worker: WorkerSpec
    way: str
    layers: int
    disk_bytes: int


def choose_variants(manifest: Manifest, layouts: Sequence[str], precisions: Sequence[str]) -> list[Variant]:
    """Those of these layouts and precisions, all of them where none is named.

    Raises ManifestError for a layout or a precision of which there is none.
    """
    chosen = [
        variant
        for variant in manifest.variants
        if (not layouts or variant.layout in layouts) and (not precisions or variant.precision in precisions)
    ]
    for layout in layouts:
        if layout not in {variant.layout for variant in chosen}:
            manifest.variant(layout, next(iter(precisions), None))  # raises, and says what there is
    for precision in precisions:
        if precision not in {variant.precision for variant in chosen}:
            manifest.variant(next(iter(layouts), None), precision)
    return chosen


def package_contenders(package: Package, variants: Sequence[Variant], settings: BenchSettings) -> list[Contender]:
    """Each variant with its policy and, where that may leave a layer out, with every layer run.

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
        for way in (POLICY, ALL_LAYERS) if decides else (POLICY,):
            contenders.append(
                Contender(
                    name=variant.name if way == POLICY else f"{variant.name}, {ALL_LAYERS}",
                    kind=PACKAGE,
                    precision=variant.precision,
                    worker=worker,
                    way=way,
                    layers=model.layers,
                    disk_bytes=variant_bytes(package, variant),
                )
            )
    return contenders


def plain_contender(package: Package, precision: str, graph: Path, settings: BenchSettings) -> Contender:
    """One graph in a file, with the package's weights in this precision."""
    name = f"{PLAIN}-{precision}"
    spec = PlainSpec(
        graph=str(graph),
        folder=str(package.root),
        providers=rival_providers(settings.providers),
        threads=settings.threads,
    )
    tokenizer = package.manifest.tokenizer
    return Contender(
        name=name,
        kind=PLAIN,
        precision=precision,
        worker=WorkerSpec(name=name, module="smartbert_bench.workers.graph_worker", spec=asdict(spec)),
        way=PLAIN,
        layers=package.manifest.model.layers,
        disk_bytes=graph.stat().st_size + tokenizer.tokenizer.bytes + tokenizer.settings.bytes,
    )


def rival_providers(providers: Sequence[str]) -> tuple[str, ...]:
    """The same ones for a model in one piece; ConfigError for a provider of one role, which it does not have."""
    for name in providers:
        if "=" in name:
            raise ConfigError(
                f"--provider {name} is for one kind of part, and a rival has no parts",
                hint="name a provider for everything, or measure the package alone",
            )
    return tuple(providers)


def variant_bytes(package: Package, variant: Variant) -> int:
    """Every file that this variant needs."""
    manifest = package.manifest
    needed = {component.files[variant.name].file for component in manifest.in_variant(variant.name)}
    needed |= {manifest.tokenizer.tokenizer.file, manifest.tokenizer.settings.file}
    needed |= {MANIFEST_FILE, DIGEST_FILE, POLICY_FILE}
    return sum((package.root / file).stat().st_size for file in needed)
