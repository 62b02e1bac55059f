"""The package's graphs: every part traced, put into each layout, quantized where texts allow it, and written."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from torch import nn

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.freed_memory import give_back
from smartbert_export.graphs.coverage import coverage
from smartbert_export.graphs.ort_format import convert_folder
from smartbert_export.graphs.single_graph import single_model, single_signature
from smartbert_export.graphs.tracing import Template, make_template
from smartbert_export.options import GraphOptions
from smartbert_export.package_files import copy_file, write_file
from smartbert_export.parts.modules import part_module
from smartbert_export.parts.signatures import LAYOUTS, Part, example_inputs, parts, signature
from smartbert_export.quantize.agreement import Agreement, QuantizationReport, check_quantized
from smartbert_export.quantize.weights import FP32, PRECISIONS, quantized
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.single_graph import MODEL
from smartbert_runtime.package.manifest import ROLES, SEPARATE, SINGLE, Component, FileEntry
from smartbert_runtime.tokenizer import Tokens

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Graphs:
    """What was written. operators: the list that a reduced build of onnxruntime needs, with ort_format."""

    components: tuple[Component, ...]
    quantization: dict[str, QuantizationReport]
    operators: FileEntry | None = None


@dataclass
class _Entry:
    part: Part
    files: dict[str, FileEntry] = field(default_factory=dict)
    coverage: dict[str, dict[str, tuple[int, ...]]] = field(default_factory=dict)


def write_graphs(
    model: SmartBertForSequenceClassification,
    staging: Path,
    options: GraphOptions,
    policy: Policy,
    check_tokens: Tokens | None,
    say: Say = lambda step: None,
) -> Graphs:
    """Write the graphs of every variant into `staging`/graphs.

    check_tokens: texts that decide what may be quantized; needed when any precision is not fp32.
    policy: what a negative threshold means to the layout `single`, and how texts are run for that decision.
    The model's weights are gone afterwards: the graphs have them, and a small machine has room for them once.
    """
    work = _Work(model, staging / "work", options, policy, check_tokens, say)
    work.cut()
    give_back()
    (staging / "graphs").mkdir()
    entries: dict[str, _Entry] = {}
    written: dict[Path, FileEntry] = {}
    for precision in PRECISIONS:
        for layout in LAYOUTS:
            if precision not in options.precisions or layout not in options.layouts:
                continue
            variant = f"{layout}-{precision}"
            for part, source in work.files(layout, precision):
                if source not in written:
                    say(f"writing {source.stem} ({variant})")
                    suffix = "" if source.parent.name == FP32 else f".{source.parent.name}"
                    written[source] = copy_file(staging, f"graphs/{source.stem}{suffix}.onnx", source)
                entry = entries.setdefault(part.name, _Entry(part=part))
                entry.files[variant] = written[source]
                entry.coverage[variant] = work.coverage(part, source)
    operators = _to_ort_format(staging, entries, say) if options.ort_format else None
    shutil.rmtree(staging / "work")
    components = tuple(_component(model, entry) for entry in sorted(entries.values(), key=_place))
    return Graphs(components=components, quantization=work.reports, operators=operators)


def _place(entry: _Entry) -> tuple[bool, int, int]:
    """Layer by layer, so that the manifest reads as a text goes; the graph of everything last."""
    return entry.part.role == MODEL, entry.part.index, ROLES.index(entry.part.role)


def _component(model: SmartBertForSequenceClassification, entry: _Entry) -> Component:
    part = entry.part
    inputs, outputs = single_signature(model.config) if part.role == MODEL else signature(model.config, part.kind)
    return Component(
        name=part.name,
        role=part.role,
        index=part.index,
        inputs=inputs,
        outputs=outputs,
        files=entry.files,
        coverage=entry.coverage,
    )


class _Work:
    """Graphs as they are made, each precision's in a folder of its own; nothing of it stays in the package."""

    def __init__(
        self,
        model: SmartBertForSequenceClassification,
        folder: Path,
        options: GraphOptions,
        policy: Policy,
        check_tokens: Tokens | None,
        say: Say,
    ) -> None:
        self.model, self.folder, self.options, self.policy, self.say = model, folder, options, policy, say
        self.reports: dict[str, QuantizationReport] = {}
        self._check_tokens = check_tokens
        self._templates: dict[str, Template] = {}
        self._coverage: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {}
        self._checked: dict[tuple[bool, str], set[str]] = {}
        self._known: dict[str, dict[str, Agreement]] = {}  # by precision, of parts that two layouts have

    def cut(self) -> None:
        """Write every part that any layout needs, in fp32; from here on only the model's config is used."""
        needed = {part.name: part for layout in self.options.layouts for part in parts(self.model.config, layout)}
        embeddings = needed.pop("embeddings")
        for part in needed.values():
            self._file(part, FP32)
        # The table is about half of a small model, and writing it takes twice its size: everything else goes before.
        self._templates.clear()
        for written in (self.model.backbone.encoder, self.model.gates, self.model.exits):
            nn.Module.to(written, "meta")
        graph = self._graph(embeddings)
        self._templates.clear()
        nn.Module.to(self.model, "meta")
        _save(graph, self._place(embeddings, FP32))

    def files(self, layout: str, precision: str) -> list[tuple[Part, Path]]:
        """The graphs of one variant: those of refused parts are the fp32 ones."""
        chosen = list(parts(self.model.config, layout))
        refused = self._refused(chosen, precision, fused=layout != SEPARATE)
        sources = {part: self._file(part, FP32 if part.name in refused else precision) for part in chosen}
        if layout != SINGLE:
            return list(sources.items())
        file = self.folder / precision / f"{MODEL}.onnx"
        if not file.exists():
            self.say(f"putting the parts into one graph ({precision})")
            config, fixed = self.model.config, self.options.fixed_shape
            whole = single_model(config, chosen, lambda part: onnx.load(sources[part]), self.policy, fixed)
            _save(whole, file)
        return [(Part(name=MODEL, role=MODEL, kind=MODEL, index=0), file)]

    def coverage(self, part: Part, source: Path) -> dict[str, tuple[int, ...]]:
        """What accelerators would take of it: counted once for each kind of part."""
        key = part.kind, source.parent.name
        if key not in self._coverage:
            self._coverage[key] = coverage(onnx.load(source))
        return self._coverage[key]

    def _refused(self, chosen: Sequence[Part], precision: str, *, fused: bool) -> set[str]:
        if precision == FP32:
            return set()
        if (fused, precision) not in self._checked:
            for part in chosen:
                self._file(part, precision)
            names = {part.name for part in chosen}
            assert self._check_tokens is not None  # asked for by export_package
            report = check_quantized(
                chosen,
                self.folder / FP32,
                self.folder / precision,
                self._check_tokens,
                self.policy,
                precision=precision,
                classes=self.model.config.num_labels,
                fused=fused,
                known={name: found for name, found in self._known.get(precision, {}).items() if name in names},
                say=self.say,
            )
            give_back()  # the weights of the sessions that tried it
            self.reports[f"{'fused' if fused else 'separate'}-{precision}"] = report
            self._known.setdefault(precision, {}).update(report.alone)
            self._checked[fused, precision] = {refusal.part for refusal in report.refused}
            for refusal in report.refused:
                self.say(
                    f"{refusal.part} stays fp32: {refusal.why}, {refusal.agreement.labels:.2%} of the labels as in fp32"
                )
        return self._checked[fused, precision]

    def _place(self, part: Part, precision: str) -> Path:
        return self.folder / precision / f"{part.name}.onnx"

    def _file(self, part: Part, precision: str) -> Path:
        file = self._place(part, precision)
        if file.exists():
            return file
        if precision == FP32:
            return _save(self._graph(part), file)
        self.say(f"quantizing {part.name} to {precision}")
        exact = onnx.load(self._file(part, FP32))
        return _save(quantized(exact, precision, self.options.target, ort_format=self.options.ort_format), file)

    def _graph(self, part: Part) -> onnx.ModelProto:
        return self._template(part).filled(part_module(self.model, part.role, part.index))

    def _template(self, part: Part) -> Template:
        if part.kind not in self._templates:
            self.say(f"tracing {part.kind}")
            inputs, outputs = signature(self.model.config, part.kind)
            self._templates[part.kind] = make_template(
                part_module(self.model, part.role, part.index),
                example_inputs(self.model.config, part.role, self.options.fixed_shape),
                inputs,
                outputs,
                fixed=self.options.fixed_shape,
                opset=self.options.opset,
            )
        return self._templates[part.kind]


def _save(model: onnx.ModelProto, file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(model.SerializeToString(deterministic=True))
    return file


def _to_ort_format(staging: Path, entries: dict[str, _Entry], say: Say) -> FileEntry:
    """Replace graphs/*.onnx by *.ort, and list the operators they use for a reduced build."""
    say("converting to onnxruntime's own format")
    converted = staging / "work" / "ort"
    config = convert_folder(staging / "graphs", converted)
    moved: dict[str, FileEntry] = {}
    for file in sorted((staging / "graphs").glob("*.onnx")):
        moved[f"graphs/{file.name}"] = write_file(
            staging, f"graphs/{file.stem}.ort", (converted / f"{file.stem}.ort").read_bytes()
        )
        file.unlink()
    for entry in entries.values():
        entry.files = {variant: moved[found.file] for variant, found in entry.files.items()}
    lines = [line for line in config.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return write_file(staging, "graphs/required_operators.config", ("\n".join(lines) + "\n").encode())
