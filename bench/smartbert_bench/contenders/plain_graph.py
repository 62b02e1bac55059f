"""The contender `plain`: the package's weights as one plain graph, every layer and the last exit head.

The graph is built from the package's own parts, so that both sides have the same weights in the same precision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import onnx

from smartbert_bench.contenders.contender import PLAIN, Contender, rival_providers
from smartbert_bench.settings import BenchSettings
from smartbert_bench.workers.graph_worker import GraphSpec
from smartbert_bench.workers.process import WorkerSpec
from smartbert_bench.workers.protocol import FULL_DEPTH
from smartbert_export.graphs.compose import Builder
from smartbert_export.graphs.simplify import drop_unused
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.package.manifest import SEPARATE, SINGLE, Component, Variant
from smartbert_runtime.package.open import Package


def plain_contenders(
    package: Package, variants: Sequence[Variant], settings: BenchSettings, folder: Path
) -> list[Contender]:
    """One contender for each precision among `variants`, its graph written into `folder`.

    Raises ConfigError for a precision whose only layout is `single`, which has no separate parts.
    """
    contenders = []
    for precision in dict.fromkeys(variant.precision for variant in variants):
        graph = folder / f"plain.{precision}.onnx"
        graph.write_bytes(plain_graph(package, _source_variant(package, precision)).SerializeToString())
        contenders.append(_contender(package, precision, graph, settings))
    return contenders


def _source_variant(package: Package, precision: str) -> Variant:
    """The variant to take the weights from; `single` where there is no other, which `plain_graph` refuses."""
    variants = [variant for variant in package.manifest.variants if variant.precision == precision]
    return next((variant for variant in variants if variant.layout != SINGLE), variants[0])


def _contender(package: Package, precision: str, graph: Path, settings: BenchSettings) -> Contender:
    name = f"{PLAIN}-{precision}"
    spec = GraphSpec(
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
        mode=FULL_DEPTH,
        layers=package.manifest.model.layers,
        disk_bytes=graph.stat().st_size + tokenizer.tokenizer.bytes + tokenizer.settings.bytes,
    )


def plain_graph(package: Package, variant: Variant) -> onnx.ModelProto:
    """(input_ids, attention_mask, token_type_ids) -> logits (b,c), from the parts of `separate` or `fused`.

    Raises ConfigError for the layout `single`, which has no separate parts, and for onnxruntime's own format.
    """
    if package.manifest.operators is not None:
        raise ConfigError("one plain graph is made of ONNX graphs, not of .ort files", hint="leave out --ort-format")
    if variant.layout == SINGLE:
        raise ConfigError(
            "one plain graph is made of the layouts 'separate' or 'fused'", hint="export one of them beside 'single'"
        )
    components = {component.name: component for component in package.manifest.in_variant(variant.name)}
    builder = Builder()
    layers = package.manifest.model.layers
    for component in _full_depth(components, layers, separate=variant.layout == SEPARATE):
        part = onnx.load(package.root / component.files[variant.name].file)
        before, after = f"hidden_{component.index - 1:02d}", f"hidden_{component.index:02d}"
        feeds = {"hidden": after if component.role == "exit" else before, "mask": "mask"}
        if component.role == "embeddings":
            feeds = {spec.name: spec.name for spec in component.inputs}
        logits = "logits" if component.index == layers else f"unused/{component.name}/logits"
        names = {"hidden": after, "hidden_next": after, "mask": "mask", "logits": logits}
        builder.inline(
            part,
            component.name,
            feeds,
            [names.get(spec.name, f"unused/{component.name}/{spec.name}") for spec in component.outputs],
        )
    model = builder.model(package.manifest.input, package.manifest.output)
    drop_unused(model.graph)  # the heads inside blocks
    return model


def _full_depth(components: dict[str, Component], layers: int, *, separate: bool) -> Iterator[Component]:
    """The parts that run at full depth, in their order."""
    yield components["embeddings"]
    for layer in range(1, layers + 1):
        yield components[f"layer_{layer:02d}" if separate else f"block_{layer:02d}"]
    if separate:
        yield components[f"exit_{layers:02d}"]
