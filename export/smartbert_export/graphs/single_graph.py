"""The layout `single`: all parts in one graph that decides by itself, so that any onnxruntime binding runs it.

The `If`s are flat: per layer one around the block, and one around the next gate for a text that skipped it. Nested
(`else: the rest of the model`) they cost 20 to 59 %, because weights below the first level are not prepacked. An
untaken branch costs nothing on the CPU. Shape letters: s sequence, h hidden, c classes, l layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import TensorProto

from smartbert.configuration import SmartBertConfig
from smartbert_export.graphs.compose import Builder
from smartbert_export.parts.signatures import Part, signature
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.single_graph import EXIT_THRESHOLD, SKIP_THRESHOLD
from smartbert_runtime.package.manifest import TensorSpec
from smartbert_runtime.sessions.fixed_shape import BATCH, SEQUENCE

_IDS = ("input_ids", "attention_mask", "token_type_ids")


def single_signature(config: SmartBertConfig) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of the graph. A negative threshold means the packaged default; every input is required."""
    ids = tuple(TensorSpec(name=name, dtype="int64", dims=("1", SEQUENCE)) for name in _IDS)
    thresholds = tuple(TensorSpec(name=name, dtype="float32", dims=()) for name in (SKIP_THRESHOLD, EXIT_THRESHOLD))
    outputs = (
        TensorSpec(name="logits", dtype="float32", dims=("1", str(config.num_labels))),
        TensorSpec(name="exit_layer", dtype="int64", dims=()),
        TensorSpec(name="layers_run", dtype="int64", dims=(str(config.layers),)),
    )
    return (*ids, *thresholds), outputs


def single_model(
    config: SmartBertConfig,
    parts: Sequence[Part],
    load: Callable[[Part], onnx.ModelProto],
    policy: Policy,
    fixed_shape: tuple[int, int] | None = None,
) -> onnx.ModelProto:
    """One model of the layout `fused`'s parts; `load` gives each part's graph, one after another.

    policy: the thresholds that a negative input stands for. fixed_shape: batch (1) and tokens that the parts were made
    for.
    """
    builder = Builder({} if fixed_shape is None else dict(zip((BATCH, SEQUENCE), fixed_shape, strict=True)))
    named = {part.name: part for part in parts}
    layers, classes = config.layers, config.num_labels
    builder.inline(load(named["embeddings"]), "embeddings", {name: name for name in _IDS}, ["hidden_00", "mask"])
    if not config.early_exits:
        _run_all(builder, [load(named[f"block_{layer:02d}"]) for layer in range(1, layers + 1)])
        return builder.model(*single_signature(config))
    _thresholds(builder, policy, gates=config.gates)
    builder.constant("tiny", np.float32(1e-30))
    builder.constant("largest_entropy", np.float32(-math.log(classes)))
    builder.constant("logits_00", np.zeros((1, classes), dtype=np.float32))
    builder.constant("done_00", np.array(False))
    builder.constant("exit_00", np.int64(layers))
    feeds = {"hidden": "hidden_00", "mask": "mask"}
    skip = builder.inline(load(named["gate_01"]), "gate_01", feeds, ["skip_01"])[0] if config.gates else None
    for layer in range(1, layers + 1):
        before, here, after = f"{layer - 1:02d}", f"{layer:02d}", f"{layer + 1:02d}"
        last = layer == layers
        builder.node("Not", [f"done_{before}"], f"open_{here}")
        if skip is None:
            builder.node("Identity", [f"open_{here}"], f"runs_{here}")
        else:
            builder.node("Reshape", [skip, "scalar"], f"skip_scalar_{here}")
            builder.node("GreaterOrEqual", [f"skip_scalar_{here}", "skip_logit"], f"skips_{here}")
            builder.node("Not", [f"skips_{here}"], f"wants_{here}")
            builder.node("And", [f"wants_{here}", f"open_{here}"], f"runs_{here}")
        told = [f"hidden_{here}", "logits" if last and skip is None else f"block_logits_{here}"]
        kept = [f"hidden_{before}", f"logits_{before}"]
        if skip is not None and not last:
            told.append(f"told_{here}")
            kept.append(skip)
        feeds = {"hidden": f"hidden_{before}", "mask": "mask"}
        block = named[f"block_{here}"]
        builder.branch(f"runs_{here}", load(block), block.name, feeds, told, kept, signature(config, block.kind)[1])
        if skip is None and last:
            break
        if skip is not None:
            builder.node("And", [f"skips_{here}", f"open_{here}"], f"skipped_{here}")
        feeds = {"hidden": f"hidden_{here}", "mask": "mask"}
        if last:
            output = signature(config, "exit")[1]
            builder.branch(
                f"skipped_{here}", load(named[f"exit_{here}"]), f"exit_{here}", feeds, ["logits"],
                [f"block_logits_{here}"], output,
            )  # fmt: skip
            break
        builder.node("Identity", [f"block_logits_{here}"], f"logits_{here}")
        _entropy(builder, here)
        builder.node("Less", [f"entropy_{here}", "exit_below"], f"sure_{here}")
        builder.node("And", [f"sure_{here}", f"runs_{here}"], f"exits_{here}")
        builder.constant(f"number_{here}", np.int64(layer))
        builder.node("Where", [f"exits_{here}", f"number_{here}", f"exit_{before}"], f"exit_{here}")
        builder.node("Or", [f"done_{before}", f"exits_{here}"], f"done_{here}")
        if skip is not None:
            skip, output = f"skip_{after}", signature(config, "gate")[1]
            gate = named[f"gate_{after}"]
            builder.branch(f"skipped_{here}", load(gate), gate.name, feeds, [skip], [f"told_{here}"], output)
    builder.node("Identity", [f"exit_{layers - 1:02d}"], "exit_layer")
    _layers_run(builder, layers)
    return builder.model(*single_signature(config))


def _run_all(builder: Builder, blocks: Sequence[onnx.ModelProto]) -> None:
    """A plain classifier decides nothing: all layers one after another, the thresholds unread."""
    layers = len(blocks)
    for layer, block in enumerate(blocks, start=1):
        outputs = [f"hidden_{layer:02d}", *(["logits"] if layer == layers else [])]
        builder.inline(block, f"block_{layer:02d}", {"hidden": f"hidden_{layer - 1:02d}", "mask": "mask"}, outputs)
    builder.constant("last_layer", np.int64(layers))
    builder.node("Identity", ["last_layer"], "exit_layer")
    builder.constant("every_layer", np.ones(layers, dtype=np.int64))
    builder.node("Identity", ["every_layer"], "layers_run")


def _thresholds(builder: Builder, policy: Policy, *, gates: bool) -> None:
    """The skip threshold as a logit (1 -> infinity, never), the exit threshold as it is; negative: the default."""
    builder.constant("zero", np.float32(0.0))
    defaults = [(EXIT_THRESHOLD, policy.exit_threshold)]
    for name, default in [(SKIP_THRESHOLD, policy.skip_threshold), *defaults] if gates else defaults:
        builder.constant(f"{name}.default", np.float32(default))
        builder.node("Less", [name, "zero"], f"{name}.is_default")
    builder.node("Where", ["exit_threshold.is_default", "exit_threshold.default", EXIT_THRESHOLD], "exit_below")
    if not gates:
        return
    builder.constant("scalar", np.array([], dtype=np.int64))
    builder.constant("whole", np.float32(1.0))
    builder.node("Where", ["skip_threshold.is_default", "skip_threshold.default", SKIP_THRESHOLD], "skip_probability")
    builder.node("Sub", ["whole", "skip_probability"], "run_probability")
    builder.node("Div", ["skip_probability", "run_probability"], "skip_odds")
    builder.node("Log", ["skip_odds"], "skip_logit")


def _entropy(builder: Builder, here: str) -> None:
    builder.node("Softmax", [f"logits_{here}"], f"p_{here}", axis=-1)
    builder.node("Max", [f"p_{here}", "tiny"], f"p_positive_{here}")
    builder.node("Log", [f"p_positive_{here}"], f"log_p_{here}")
    builder.node("Mul", [f"p_{here}", f"log_p_{here}"], f"p_log_p_{here}")
    builder.node("ReduceSum", [f"p_log_p_{here}"], f"sum_{here}", keepdims=0)
    builder.node("Div", [f"sum_{here}", "largest_entropy"], f"entropy_{here}")


def _layers_run(builder: Builder, layers: int) -> None:
    builder.constant("flat", np.array([1], dtype=np.int64))
    names = []
    for layer in range(1, layers + 1):
        builder.node("Cast", [f"runs_{layer:02d}"], f"run_{layer:02d}", to=TensorProto.INT64)
        builder.node("Reshape", [f"run_{layer:02d}", "flat"], f"run_flat_{layer:02d}")
        names.append(f"run_flat_{layer:02d}")
    builder.node("Concat", names, "layers_run", axis=0)
