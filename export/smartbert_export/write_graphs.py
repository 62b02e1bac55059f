"""The folder graphs/ of a package: each graph file once, and the manifest's entry of every part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from smartbert.configuration import SmartBertConfig
from smartbert_export.graphs.coverage import Coverage
from smartbert_export.graphs.graph_files import VariantGraphs
from smartbert_export.graphs.ort_format import convert_folder
from smartbert_export.graphs.single_graph import single_signature
from smartbert_export.package_files import copy_file, write_file
from smartbert_export.parts.signatures import Part, signature
from smartbert_export.precisions import FP32
from smartbert_runtime.package.manifest import Component, FileEntry
from smartbert_runtime.package.part_names import MODEL, ROLES
from smartbert_runtime.reporting import SILENT, Reporter

OPERATORS_FILE = "graphs/required_operators.config"


def write_graphs(
    staging: Path,
    variants: Sequence[VariantGraphs],
    config: SmartBertConfig,
    coverage: Mapping[Path, Coverage],
    *,
    ort_format: bool = False,
    reporter: Reporter = SILENT,
) -> tuple[tuple[Component, ...], FileEntry | None]:
    """Write `staging`/graphs; the parts in running order, and with `ort_format` the list of operators they need."""
    (staging / "graphs").mkdir()
    entries: dict[Path, FileEntry] = {}
    for variant in variants:
        for graph in variant.graphs:
            if graph.file not in entries:
                reporter.step(f"writing {graph.part.name} ({variant.variant.name})")
                suffix = "" if graph.precision == FP32 else f".{graph.precision}"
                entries[graph.file] = copy_file(staging, f"graphs/{graph.part.name}{suffix}.onnx", graph.file)
    operators = None
    if ort_format:
        reporter.step("converting to onnxruntime's own format")
        entries, operators = _to_ort_format(staging, entries)
    return _components(variants, config, entries, coverage), operators


def _to_ort_format(staging: Path, entries: Mapping[Path, FileEntry]) -> tuple[dict[Path, FileEntry], FileEntry]:
    """Replace graphs/NAME.onnx by NAME.ort, and list the operators that a reduced build needs."""
    with TemporaryDirectory(dir=staging) as temporary:
        converted = Path(temporary) / "ort"
        config = convert_folder(staging / "graphs", converted)
        replaced = {}
        for source, entry in entries.items():
            name = f"{Path(entry.file).stem}.ort"
            replaced[source] = copy_file(staging, f"graphs/{name}", converted / name)
            (staging / entry.file).unlink()
        lines = [line for line in config.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return replaced, write_file(staging, OPERATORS_FILE, ("\n".join(lines) + "\n").encode())


@dataclass(frozen=True, kw_only=True)
class _PartFiles:
    """What one part has in each variant."""

    files: dict[str, FileEntry] = field(default_factory=dict)
    schemes: dict[str, str] = field(default_factory=dict)
    coverage: dict[str, Coverage] = field(default_factory=dict)


def _components(
    variants: Sequence[VariantGraphs],
    config: SmartBertConfig,
    entries: Mapping[Path, FileEntry],
    coverage: Mapping[Path, Coverage],
) -> tuple[Component, ...]:
    found: dict[Part, _PartFiles] = {}
    for variant in variants:
        for graph in variant.graphs:
            part = found.setdefault(graph.part, _PartFiles())
            part.files[variant.variant.name] = entries[graph.file]
            if graph.scheme:
                part.schemes[variant.variant.name] = graph.scheme
            part.coverage[variant.variant.name] = coverage[graph.file]
    return tuple(_component(part, config, found[part]) for part in sorted(found, key=_running_order))


def _component(part: Part, config: SmartBertConfig, found: _PartFiles) -> Component:
    inputs, outputs = single_signature(config) if part.role == MODEL else signature(config, part.kind)
    return Component(
        name=part.name,
        role=part.role,
        index=part.index,
        inputs=inputs,
        outputs=outputs,
        files=found.files,
        coverage=found.coverage,
        schemes=found.schemes,
    )


def _running_order(part: Part) -> tuple[bool, int, int]:
    """Layer by layer; the graph of everything last."""
    return part.role == MODEL, part.index, ROLES.index(part.role)
