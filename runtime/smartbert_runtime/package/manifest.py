"""manifest.json as frozen dataclasses: what a package folder holds (open.py reads and checks it).

The words follow onnxruntime's own model package: a component is one part of the model (`layer_03`), a variant is
one layout and precision (`separate-fp32`), and each component names the file it uses in each variant.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ManifestError

SCHEMA_VERSION = "1.1"
MANIFEST_FILE = "manifest.json"
DIGEST_FILE = "manifest.sha256"
POLICY_FILE = "policy.json"

SEPARATE, FUSED, SINGLE = "separate", "fused", "single"


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of the package: its relative path with `/`, the sha256 of its bytes, its size in bytes."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """One input or output: numpy dtype name and dimensions, a word for each dynamic one."""

    name: str
    dtype: str
    dims: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One layout in one precision; the first in the manifest is the default."""

    name: str
    layout: str
    precision: str


@dataclass(frozen=True, kw_only=True)
class Component:
    """One part: `role` is embeddings, gate, layer, exit, block (layer, its exit and the next gate) or model (all).

    `index` is its layer from 1, 0 for the embeddings and the model; `files` has an entry for each variant that uses it.
    coverage: variant -> provider -> [nodes it would take, nodes in all], by onnxruntime's own usability checker.
    schemes: variant -> how the part's numbers were quantized, such as "static"; none for a part in fp32. (Since 1.1.)
    """

    name: str
    role: str
    index: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    files: dict[str, FileEntry]
    coverage: dict[str, dict[str, tuple[int, ...]]] = field(default_factory=dict)
    schemes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What the runtime must know about the model: sizes, and the longest input in tokens.

    fixed_shape: batch size and sequence length of every graph; None when both are dynamic.
    gates, early_exits: false for a model without, which never skips a layer, or answers after the last one only.
    text_pairs: whether it was trained on pairs of texts; None where that is not known. (Since 1.1.)
    """

    family: str
    layers: int
    hidden_size: int
    max_length: int
    fixed_shape: tuple[int, ...] | None = None
    gates: bool = True
    early_exits: bool = True
    text_pairs: bool | None = None


@dataclass(frozen=True, kw_only=True)
class TokenizerFiles:
    """The tokenizer's own file and the few settings that it lacks."""

    tokenizer: FileEntry
    settings: FileEntry


@dataclass(frozen=True, kw_only=True)
class GoldenFiles:
    """Recorded PyTorch answers and the policy they were recorded with; `texts` is absent when only ids ship."""

    expected: FileEntry
    policy: Policy
    texts: FileEntry | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the package comes from; no times and no paths, so that two exports are byte-equal."""

    checkpoint_sha256: str
    opset: int
    options: dict[str, object]
    packages: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The whole of manifest.json. operators: what a reduced build of onnxruntime needs for these graphs."""

    schema_version: str
    model: ModelFacts
    labels: tuple[str, ...]
    input: tuple[TensorSpec, ...]
    output: tuple[TensorSpec, ...]
    variants: tuple[Variant, ...]
    components: tuple[Component, ...]
    tokenizer: TokenizerFiles
    golden: GoldenFiles
    provenance: Provenance
    operators: FileEntry | None = None
    extra: dict[str, object] = field(default_factory=dict)

    def component(self, name: str) -> Component:
        """The component called `name`; ManifestError lists those that exist."""
        for component in self.components:
            if component.name == name:
                return component
        names = ", ".join(c.name for c in self.components)
        raise ManifestError(f"the package has no part {name!r}", hint=f"its parts: {names}")

    def in_variant(self, variant: str) -> tuple[Component, ...]:
        """The components that a variant uses, in running order."""
        return tuple(component for component in self.components if variant in component.files)

    def variant(self, layout: str | None = None, precision: str | None = None) -> Variant:
        """The first variant with this layout and precision (None: any); ManifestError lists those that exist."""
        for variant in self.variants:
            if layout in (None, variant.layout) and precision in (None, variant.precision):
                return variant
        raise ManifestError(
            f"the package holds no variant with layout {layout or 'any'} and precision {precision or 'any'}",
            hint="it holds: " + ", ".join(v.name for v in self.variants),
        )

    def files(self) -> list[FileEntry]:
        """Every file that the manifest lists, each once."""
        entries = [entry for component in self.components for entry in component.files.values()]
        entries += [self.tokenizer.tokenizer, self.tokenizer.settings, self.golden.expected]
        entries += [entry for entry in (self.golden.texts, self.operators) if entry is not None]
        return list({entry.file: entry for entry in entries}.values())
