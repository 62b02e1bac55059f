"""A package's weights as one plain graph, all layers and the last head: what deciding is measured against.

Made of the parts in the package, so that both sides have the same weights in the same precision.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from smartbert_export.graphs.compose import Builder
from smartbert_export.graphs.simplify import drop_unused
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.package.manifest import SEPARATE, SINGLE, Component, Variant
from smartbert_runtime.package.open import Package


def monolith(package: Package, variant: Variant) -> onnx.ModelProto:
    """(input_ids, attention_mask, token_type_ids) -> logits (b,c), from the parts of `separate` or `fused`.

    Raises ConfigError for the layout `single`, whose parts are not apart, and for onnxruntime's own format.
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
    for component in _chain(components, layers, separate=variant.layout == SEPARATE):
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


def _chain(components: dict[str, Component], layers: int, *, separate: bool) -> Iterator[Component]:
    yield components["embeddings"]
    for layer in range(1, layers + 1):
        yield components[f"layer_{layer:02d}" if separate else f"block_{layer:02d}"]
    if separate:
        yield components[f"exit_{layers:02d}"]
