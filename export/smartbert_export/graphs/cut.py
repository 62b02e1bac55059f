"""Step 3 of an export: cut the model into its parts, each an fp32 graph in a file of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from smartbert.configuration import SmartBertConfig
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.freed_memory import return_freed_memory
from smartbert_export.graphs.graph_files import save_graph
from smartbert_export.graphs.tracing import OPSET, Template, make_template
from smartbert_export.parts.modules import part_module
from smartbert_export.parts.signatures import Part, example_inputs, parts, signature
from smartbert_runtime.package.part_names import EMBEDDINGS
from smartbert_runtime.reporting import SILENT, Reporter

# Templates of this process, by all that decides a graph: tracing is most of an export's time, and a second checkpoint
# of the same structure needs none. They hold no weights.
_TRACED: dict[str, Template] = {}
MOST_TRACED = 64


@dataclass(frozen=True, kw_only=True)
class CutParts:
    """The fp32 graph of every part that any of the layouts has, and the config of the model that was cut.

    fixed_shape: batch and tokens that the graphs were made for; None when both are dynamic.
    """

    folder: Path
    config: SmartBertConfig
    fixed_shape: tuple[int, int] | None

    def file(self, part: Part) -> Path:
        """Where a part's graph is."""
        return self.folder / f"{part.name}.onnx"


def cut_parts(
    model: SmartBertForSequenceClassification,
    folder: Path,
    layouts: Sequence[str],
    *,
    fixed_shape: tuple[int, int] | None = None,
    opset: int = OPSET,
    release_weights: bool = False,
    reporter: Reporter = SILENT,
) -> CutParts:
    """Write the graph of every part of these layouts into `folder`.

    release_weights: consume the model. Its weights are moved to the device `meta` as soon as their graphs are written,
    so that they are in memory once; afterwards only its config can be used. Otherwise the model is left as it is.
    """
    needed = {part.name: part for layout in layouts for part in parts(model.config, layout)}
    embeddings = needed.pop(EMBEDDINGS)
    cut = CutParts(folder=folder, config=model.config, fixed_shape=fixed_shape)
    templates: dict[str, Template] = {}  # by kind: parts of one kind differ in their weights only
    for part in needed.values():
        if part.kind not in templates:
            templates[part.kind] = _trace(model, part, fixed_shape, opset, reporter)
        save_graph(templates[part.kind].filled(part_module(model, part.role, part.index)), cut.file(part))
    # The token table is about half of a small model, and writing it takes twice its size: all else is released before.
    templates.clear()
    if release_weights:
        for written in (model.backbone.encoder, model.gates, model.exits):
            nn.Module.to(written, "meta")
    template = _trace(model, embeddings, fixed_shape, opset, reporter)
    graph = template.filled(part_module(model, embeddings.role, embeddings.index))
    if release_weights:
        nn.Module.to(model, "meta")
    save_graph(graph, cut.file(embeddings))
    del graph
    return_freed_memory()
    return cut


def _trace(
    model: SmartBertForSequenceClassification,
    part: Part,
    fixed_shape: tuple[int, int] | None,
    opset: int,
    reporter: Reporter,
) -> Template:
    module = part_module(model, part.role, part.index)
    structure = json.dumps(model.config.to_dict(), sort_keys=True, default=str), repr(module)
    key = repr((structure, part.kind, fixed_shape, opset))
    reporter.step(f"tracing {part.kind}")
    if key not in _TRACED:
        inputs, outputs = signature(model.config, part.kind)
        if len(_TRACED) >= MOST_TRACED:
            _TRACED.clear()
        _TRACED[key] = make_template(
            module,
            example_inputs(model.config, part.role, fixed_shape),
            inputs,
            outputs,
            fixed=fixed_shape,
            opset=opset,
        )
    return _TRACED[key]
