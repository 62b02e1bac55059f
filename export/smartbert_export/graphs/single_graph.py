"""The layout `single`: one graph of all parts that makes every decision itself, for any onnxruntime binding.

The `If`s are flat: for each layer one around its block, and one around the next gate for a text that skipped it. Nested
`If`s (`else: the rest of the model`) cost 20 to 59 %, because weights below the first level are not prepacked. A branch
that is not taken costs nothing on the CPU. Shape letters: s sequence, h hidden, c classes, l layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto

from smartbert.configuration import SmartBertConfig
from smartbert_export.graphs.compose import Builder
from smartbert_export.parts.signatures import Part, signature
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.single_graph import EXIT_THRESHOLD, SKIP_THRESHOLD
from smartbert_runtime.package.manifest import TensorSpec
from smartbert_runtime.package.part_names import EMBEDDINGS
from smartbert_runtime.sessions.fixed_shape import BATCH, SEQUENCE

_IDS = ("input_ids", "attention_mask", "token_type_ids")


def single_signature(config: SmartBertConfig) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs of the graph. Every input is required; a negative threshold means the packaged default."""
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
    """The parts of the layout `fused` in one graph; `load` returns a part's graph, of which one at a time is needed.

    policy: the thresholds that a negative input stands for. fixed_shape: batch (1) and tokens that the parts were made
    for.
    """
    builder = Builder({} if fixed_shape is None else dict(zip((BATCH, SEQUENCE), fixed_shape, strict=True)))
    by_name = {part.name: part for part in parts}
    builder.inline(load(by_name[EMBEDDINGS]), EMBEDDINGS, {name: name for name in _IDS}, ["hidden_00", "mask"])
    if config.early_exits:
        _add_thresholds(builder, policy, gates=config.gates)
        _SingleGraph(builder, config, by_name, load).add_layers()
    else:
        _add_plain_layers(builder, [load(by_name[f"block_{layer:02d}"]) for layer in range(1, config.layers + 1)])
    return builder.model(*single_signature(config))


class _SingleGraph:
    """Adds the layers of a model with exit heads. Names of layer i's values end in its number, `_02`; `_00` is before.

    skip_i: skip logit of gate i. open_i: no head has answered before layer i. runs_i: layer i runs. skipped_i: its gate
    skips it. hidden_i: the state after layer i. block_logits_i, logits_i: logits of the last head that was evaluated.
    told_i: the block's skip logit for the next gate. exits_i: head i answers. done_i: a head has answered. exit_i:
    the layer that answered, the last one until then.
    """

    def __init__(
        self,
        builder: Builder,
        config: SmartBertConfig,
        parts: Mapping[str, Part],
        load: Callable[[Part], onnx.ModelProto],
    ) -> None:
        self._builder, self._config, self._parts, self._load = builder, config, parts, load

    def add_layers(self) -> None:
        """All layers, from the embeddings to the three outputs."""
        builder, layers, classes = self._builder, self._config.layers, self._config.num_labels
        builder.constant("tiny", np.float32(1e-30))
        builder.constant("largest_entropy", np.float32(-math.log(classes)))
        builder.constant("logits_00", np.zeros((1, classes), dtype=np.float32))
        builder.constant("done_00", np.array(False))
        builder.constant("exit_00", np.int64(layers))
        if self._config.gates:
            builder.inline(self._graph("gate_01"), "gate_01", self._reads(0), ["skip_01"])
        for layer in range(1, layers + 1):
            self._add_decision(layer)
            self._add_block(layer)
            if layer < layers:
                self._add_exit(layer)
                if self._config.gates:
                    self._add_next_gate(layer)
            elif self._config.gates:
                self._add_last_head()
        builder.node("Identity", [f"exit_{layers - 1:02d}"], "exit_layer")
        _add_layers_run(builder, layers)

    def _graph(self, name: str) -> onnx.ModelProto:
        return self._load(self._parts[name])

    def _outputs(self, name: str) -> Sequence[TensorSpec]:
        return signature(self._config, self._parts[name].kind)[1]

    def _reads(self, layer: int) -> dict[str, str]:
        """Inputs of a part that reads the state after `layer`."""
        return {"hidden": f"hidden_{layer:02d}", "mask": "mask"}

    def _add_decision(self, layer: int) -> None:
        """Does the layer run: no head has answered yet, and its gate does not skip it."""
        builder, here = self._builder, f"{layer:02d}"
        builder.node("Not", [f"done_{layer - 1:02d}"], f"open_{here}")
        if not self._config.gates:
            builder.node("Identity", [f"open_{here}"], f"runs_{here}")
            return
        builder.node("Reshape", [f"skip_{here}", "scalar"], f"skip_scalar_{here}")
        builder.node("GreaterOrEqual", [f"skip_scalar_{here}", "skip_logit"], f"skips_{here}")
        builder.node("Not", [f"skips_{here}"], f"wants_{here}")
        builder.node("And", [f"wants_{here}", f"open_{here}"], f"runs_{here}")

    def _add_block(self, layer: int) -> None:
        """The block's outputs where the layer runs; otherwise state, logits and skip logit pass unchanged."""
        builder, here, before = self._builder, f"{layer:02d}", f"{layer - 1:02d}"
        gates, is_last = self._config.gates, layer == self._config.layers
        outputs = [f"hidden_{here}", "logits" if is_last and not gates else f"block_logits_{here}"]
        otherwise = [f"hidden_{before}", f"logits_{before}"]
        if gates and not is_last:
            outputs.append(f"told_{here}")
            otherwise.append(f"skip_{here}")
        name = f"block_{here}"
        builder.branch(
            f"runs_{here}", self._graph(name), name, self._reads(layer - 1), outputs, otherwise, self._outputs(name)
        )
        if gates:
            builder.node("And", [f"skips_{here}", f"open_{here}"], f"skipped_{here}")

    def _add_exit(self, layer: int) -> None:
        """Does the layer's exit head answer: the layer ran, and the entropy is below the threshold."""
        builder, here, before = self._builder, f"{layer:02d}", f"{layer - 1:02d}"
        builder.node("Identity", [f"block_logits_{here}"], f"logits_{here}")
        _add_entropy(builder, here)
        builder.node("Less", [f"entropy_{here}", "exit_below"], f"sure_{here}")
        builder.node("And", [f"sure_{here}", f"runs_{here}"], f"exits_{here}")
        builder.constant(f"number_{here}", np.int64(layer))
        builder.node("Where", [f"exits_{here}", f"number_{here}", f"exit_{before}"], f"exit_{here}")
        builder.node("Or", [f"done_{before}", f"exits_{here}"], f"done_{here}")

    def _add_next_gate(self, layer: int) -> None:
        """The next gate's skip logit: its own part's where this layer was skipped, otherwise the block's."""
        here, after = f"{layer:02d}", f"{layer + 1:02d}"
        name = f"gate_{after}"
        self._builder.branch(
            f"skipped_{here}",
            self._graph(name),
            name,
            self._reads(layer),
            [f"skip_{after}"],
            [f"told_{here}"],
            self._outputs(name),
        )

    def _add_last_head(self) -> None:
        """The logits: the last exit head's own part's where the last layer was skipped, otherwise the block's."""
        here = f"{self._config.layers:02d}"
        name = f"exit_{here}"
        self._builder.branch(
            f"skipped_{here}",
            self._graph(name),
            name,
            self._reads(self._config.layers),
            ["logits"],
            [f"block_logits_{here}"],
            self._outputs(name),
        )


def _add_plain_layers(builder: Builder, blocks: Sequence[onnx.ModelProto]) -> None:
    """A plain classifier decides nothing: all its layers in sequence, and neither threshold is read."""
    layers = len(blocks)
    for layer, block in enumerate(blocks, start=1):
        outputs = [f"hidden_{layer:02d}", *(["logits"] if layer == layers else [])]
        builder.inline(block, f"block_{layer:02d}", {"hidden": f"hidden_{layer - 1:02d}", "mask": "mask"}, outputs)
    builder.constant("last_layer", np.int64(layers))
    builder.node("Identity", ["last_layer"], "exit_layer")
    builder.constant("every_layer", np.ones(layers, dtype=np.int64))
    builder.node("Identity", ["every_layer"], "layers_run")


def _add_thresholds(builder: Builder, policy: Policy, *, gates: bool) -> None:
    """`skip_logit`, of the skip threshold (1 -> infinity, never), and `exit_below`; a negative input is the default."""
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


def _add_entropy(builder: Builder, here: str) -> None:
    builder.node("Softmax", [f"logits_{here}"], f"p_{here}", axis=-1)
    builder.node("Max", [f"p_{here}", "tiny"], f"p_positive_{here}")
    builder.node("Log", [f"p_positive_{here}"], f"log_p_{here}")
    builder.node("Mul", [f"p_{here}", f"log_p_{here}"], f"p_log_p_{here}")
    builder.node("ReduceSum", [f"p_log_p_{here}"], f"sum_{here}", keepdims=0)
    builder.node("Div", [f"sum_{here}", "largest_entropy"], f"entropy_{here}")


def _add_layers_run(builder: Builder, layers: int) -> None:
    builder.constant("flat", np.array([1], dtype=np.int64))
    names = []
    for layer in range(1, layers + 1):
        builder.node("Cast", [f"runs_{layer:02d}"], f"run_{layer:02d}", to=TensorProto.INT64)
        builder.node("Reshape", [f"run_{layer:02d}", "flat"], f"run_flat_{layer:02d}")
        names.append(f"run_flat_{layer:02d}")
    builder.node("Concat", names, "layers_run", axis=0)
