"""How a trial runs texts, and compares what quantized parts decide with what fp32 decides.

Shape letters: b batch, s sequence, h hidden, c classes, v views (ways of comparing the labels of the same texts).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_export.parts.signatures import Part
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.batch import run_batch
from smartbert_runtime.engine.parts import Parts
from smartbert_runtime.package.part_names import BLOCK, EMBEDDINGS, EXIT, GATE, LAYER, part_name
from smartbert_runtime.tokenizer import Tokens


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Texts of a batch whose label, in each view, and whose exit layer under the policy are those of fp32."""

    labels_vb: NDArray[np.bool_]
    exit_layers_b: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class TrialDecisions:
    """Labels and exit layers of a batch under the policy, and its labels at full depth."""

    labels_b: NDArray[np.int64]
    exit_layers_b: NDArray[np.int64]
    full_depth_labels_b: NDArray[np.int64]

    def compare(self, other: TrialDecisions) -> Comparison:
        """Two views: under the policy, and at full depth."""
        views = [self.labels_b == other.labels_b, self.full_depth_labels_b == other.full_depth_labels_b]
        return Comparison(labels_vb=np.stack(views), exit_layers_b=self.exit_layers_b == other.exit_layers_b)


@dataclass(frozen=True, kw_only=True)
class Runner:
    """Runs batches through the parts of one layout.

    fused: a layer's part is a block, which evaluates the exit head itself.
    heads: otherwise, the layers that an exit head follows.
    """

    policy: Policy
    layers: int
    classes: int
    fused: bool
    heads: Collection[int]

    def decide(self, parts: Parts, tokens: Tokens) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Labels and exit layers under the policy, each (b)."""
        return self._run(parts, tokens, self.policy)

    def decide_twice(self, parts: Parts, tokens: Tokens) -> TrialDecisions:
        """Under the policy and at full depth."""
        labels_b, exit_layers_b = self._run(parts, tokens, self.policy)
        full_depth_labels_b, _ = self._run(parts, tokens, self.policy.at_full_depth())
        return TrialDecisions(labels_b=labels_b, exit_layers_b=exit_layers_b, full_depth_labels_b=full_depth_labels_b)

    def _run(self, parts: Parts, tokens: Tokens, policy: Policy) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        outcomes = run_batch(parts, tokens, policy, layers=self.layers, classes=self.classes, fused=self.fused)
        labels_b = np.array([outcome.trace.logits_c.argmax() for outcome in outcomes])
        return labels_b, np.array([outcome.trace.exit_layer for outcome in outcomes])

    def run_layer(
        self, parts: Parts, layer: int, hidden_bsh: NDArray[np.float32], mask_b11s: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """The next hidden state, and the logits (b,c) of the exit head after the layer; None where no head follows."""
        feeds = {"hidden": hidden_bsh, "mask": mask_b11s}
        if self.fused:
            hidden_next_bsh, *heads = parts.run(part_name(BLOCK, layer), feeds)
            return hidden_next_bsh, heads[0] if heads else None
        (hidden_next_bsh,) = parts.run(part_name(LAYER, layer), feeds)
        if layer not in self.heads:
            return hidden_next_bsh, None
        (logits_bc,) = parts.run(part_name(EXIT, layer), {"hidden": hidden_next_bsh, "mask": mask_b11s})
        return hidden_next_bsh, logits_bc


class ReferenceBatch:
    """One batch in fp32, with its hidden state before and after every layer, so that any one part can be replaced."""

    def __init__(self, runner: Runner, fp32: Parts, tokens: Tokens) -> None:
        self._runner, self._tokens = runner, tokens
        hidden_bsh, self._mask_b11s = fp32.run(EMBEDDINGS, tokens.feeds())
        self._hidden = [hidden_bsh]
        self._head_labels: list[NDArray[np.int64] | None] = []  # by layer; None where no head follows
        for layer in range(1, runner.layers + 1):
            hidden_bsh, logits_bc = runner.run_layer(fp32, layer, hidden_bsh, self._mask_b11s)
            self._hidden.append(hidden_bsh)
            self._head_labels.append(None if logits_bc is None else logits_bc.argmax(axis=1))
        labels_b, exit_layers_b = runner.decide(fp32, tokens)
        assert self._head_labels[-1] is not None  # every model has its last head
        self.decisions = TrialDecisions(
            labels_b=labels_b, exit_layers_b=exit_layers_b, full_depth_labels_b=self._head_labels[-1]
        )

    def compare(self, parts: Parts, part: Part) -> Comparison:
        """`parts` has `part` quantized. Views: under the policy, and the exit head that reads `part`, on all texts."""
        fp32 = self.decisions
        labels_b, exit_layers_b = fp32.labels_b.copy(), fp32.exit_layers_b.copy()
        # A text that left before this part is decided by the same fp32 parts as before.
        rows = np.flatnonzero(exit_layers_b >= part.index)
        if rows.size:
            labels_b[rows], exit_layers_b[rows] = self._runner.decide(parts, self._tokens.rows(rows.tolist()))
        views = [labels_b == fp32.labels_b]
        # The embeddings are read by layer 1's head.
        head_labels_b = self._head_labels[max(1, part.index) - 1]
        if part.role != GATE and head_labels_b is not None:
            views.append(self._next_head_labels(parts, part) == head_labels_b)
        return Comparison(labels_vb=np.stack(views), exit_layers_b=exit_layers_b == fp32.exit_layers_b)

    def _next_head_labels(self, parts: Parts, part: Part) -> NDArray[np.int64]:
        layer = max(1, part.index)
        if part.role == EXIT:
            feeds = {"hidden": self._hidden[layer], "mask": self._mask_b11s}
            logits_bc: NDArray[np.float32] | None = parts.run(part.name, feeds)[0]
        else:
            is_first = part.role == EMBEDDINGS
            hidden_bsh = parts.run(EMBEDDINGS, self._tokens.feeds())[0] if is_first else self._hidden[layer - 1]
            logits_bc = self._runner.run_layer(parts, layer, hidden_bsh, self._mask_b11s)[1]
        assert logits_bc is not None  # called only where a head follows
        labels_b: NDArray[np.int64] = logits_bc.argmax(axis=1)
        return labels_b
