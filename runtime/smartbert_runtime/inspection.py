"""What a package folder holds, without running it: variants, parts, sizes, thresholds, operator coverage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.manifest import Variant
from smartbert_runtime.package.open import Package
from smartbert_runtime.sessions.sessions import Sessions


@dataclass(frozen=True, kw_only=True)
class PartFacts:
    """One part in one variant. bytes: its file's size.

    coverage: provider -> [nodes it would take, nodes in all], as counted at export.
    placement: provider -> nodes it took here, after onnxruntime's own optimization; only when sessions were opened.
    """

    part: str
    role: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    file: str
    sha256: str
    bytes: int
    coverage: Mapping[str, tuple[int, ...]]
    placement: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class VariantFacts:
    """One layout in one precision; `bytes` is the size of its graph files, each counted once."""

    variant: Variant
    bytes: int
    presets: Mapping[str, Policy]
    parts: tuple[PartFacts, ...]


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The whole package."""

    family: str
    layers: int
    hidden_size: int
    max_length: int
    fixed_shape: tuple[int, ...] | None
    labels: tuple[str, ...]
    checkpoint_sha256: str
    packages: Mapping[str, str]
    variants: tuple[VariantFacts, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """The same as plain values, for JSON."""
        return asdict(self)


def inspect_package(package: Package, *, providers: Sequence[str] = ()) -> Inspection:
    """Inspect every variant; with `providers`, each part is loaded on them and its nodes are counted."""
    manifest = package.manifest
    policies = package.policies()
    variants = []
    for variant in manifest.variants:
        sessions = Sessions(package, variant, providers=providers) if providers else None
        if sessions is not None:
            sessions.open_all()
        placements = sessions.placements() if sessions is not None else {}
        parts, sizes = [], {}
        for component in manifest.in_variant(variant.name):
            entry = component.files[variant.name]
            sizes[entry.file] = entry.bytes
            parts.append(
                PartFacts(
                    part=component.name,
                    role=component.role,
                    inputs=tuple(f"{spec.name} ({','.join(spec.dims)})" for spec in component.inputs),
                    outputs=tuple(f"{spec.name} ({','.join(spec.dims)})" for spec in component.outputs),
                    file=entry.file,
                    sha256=entry.sha256,
                    bytes=entry.bytes,
                    coverage=component.coverage.get(variant.name, {}),
                    placement=placements.get(component.name, {}),
                )
            )
        variants.append(
            VariantFacts(
                variant=variant,
                bytes=sum(sizes.values()),
                presets=policies.variants.get(variant.name, {}),
                parts=tuple(parts),
            )
        )
    return Inspection(
        family=manifest.model.family,
        layers=manifest.model.layers,
        hidden_size=manifest.model.hidden_size,
        max_length=manifest.model.max_length,
        fixed_shape=manifest.model.fixed_shape,
        labels=manifest.labels,
        checkpoint_sha256=manifest.provenance.checkpoint_sha256,
        packages=manifest.provenance.packages,
        variants=tuple(variants),
        notes=package.notes,
    )
