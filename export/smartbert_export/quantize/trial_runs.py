"""How a trial runs texts, and what quantized parts lose against fp32 on them.

Shape letters: b batch, s sequence, h hidden, c classes, v views (ways of judging the same texts).
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from smartbert_export.parts.signatures import Part
from smartbert_export.quantize.check_texts import CheckTexts
from smartbert_export.quantize.losses import paired_losses
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.batch import run_batch
from smartbert_runtime.engine.parts import Parts
from smartbert_runtime.package.part_names import BLOCK, EMBEDDINGS, EXIT, GATE, LAYER, part_name
from smartbert_runtime.tokenizer import Tokens


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Of a batch, in each view: losses against fp32 and equal labels; and equal exit layers under the policy.

    error: of one part's outputs on fp32 inputs; 0 for all parts together.
    """

    losses_vb: NDArray[np.float64]
    labels_vb: NDArray[np.bool_]
    exit_layers_b: NDArray[np.bool_]
    error: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrialDecisions:
    """Logits and exit layers of a batch under the policy, and its logits at full depth."""

    logits_bc: NDArray[np.float32]
    exit_layers_b: NDArray[np.int64]
    full_depth_logits_bc: NDArray[np.float32]

    def compare(self, other: TrialDecisions, label_ids_b: NDArray[np.int64] | None) -> Comparison:
        """What `other` loses against these. Two views: under the policy, and at full depth."""
        views = [
            (self.logits_bc, other.logits_bc),
            (self.full_depth_logits_bc, other.full_depth_logits_bc),
        ]
        return _compared(views, label_ids_b, self.exit_layers_b == other.exit_layers_b)


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

    def decide(self, parts: Parts, tokens: Tokens) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Logits (b,c) and exit layers (b) under the policy."""
        return self._run(parts, tokens, self.policy)

    def decide_twice(self, parts: Parts, tokens: Tokens) -> TrialDecisions:
        """Under the policy and at full depth."""
        logits_bc, exit_layers_b = self._run(parts, tokens, self.policy)
        full_depth_logits_bc, _ = self._run(parts, tokens, self.policy.at_full_depth())
        return TrialDecisions(
            logits_bc=logits_bc, exit_layers_b=exit_layers_b, full_depth_logits_bc=full_depth_logits_bc
        )

    def _run(self, parts: Parts, tokens: Tokens, policy: Policy) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        outcomes = run_batch(parts, tokens, policy, layers=self.layers, classes=self.classes, fused=self.fused)
        logits_bc = np.stack([outcome.trace.logits_c for outcome in outcomes])
        return logits_bc, np.array([outcome.trace.exit_layer for outcome in outcomes])

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

    def __init__(self, runner: Runner, fp32: Parts, texts: CheckTexts) -> None:
        self._runner, self._fp32, self._tokens, self._label_ids_b = runner, fp32, texts.tokens, texts.label_ids_r
        hidden_bsh, self._mask_b11s = fp32.run(EMBEDDINGS, texts.tokens.feeds())
        self._hidden = [hidden_bsh]
        self._head_logits: list[NDArray[np.float32] | None] = []  # by layer; None where no head follows
        for layer in range(1, runner.layers + 1):
            hidden_bsh, logits_bc = runner.run_layer(fp32, layer, hidden_bsh, self._mask_b11s)
            self._hidden.append(hidden_bsh)
            self._head_logits.append(logits_bc)
        logits_bc, exit_layers_b = runner.decide(fp32, texts.tokens)
        full_depth_logits_bc = self._head_logits[-1]
        assert full_depth_logits_bc is not None  # every model has its last head
        self.decisions = TrialDecisions(
            logits_bc=logits_bc, exit_layers_b=exit_layers_b, full_depth_logits_bc=full_depth_logits_bc
        )

    def error(self, parts: Parts, part: Part) -> float:
        """Of `part` alone, on fp32 inputs: its outputs' root mean square error over their own; of several, the largest.

        Padding does not count.
        """
        feeds = self._tokens.feeds() if part.role == EMBEDDINGS else self._feeds(part)
        real_bs = self._tokens.attention_mask_bs.astype(bool)
        worst = 0.0
        for exact, found in zip(self._fp32.run(part.name, feeds), parts.run(part.name, feeds), strict=True):
            if exact.ndim == 3:
                exact, found = exact[real_bs], found[real_bs]
            worst = max(worst, float(((exact - found) ** 2).mean()) / max(float((exact**2).mean()), 1e-12))
        return math.sqrt(worst)

    def compare(self, parts: Parts, part: Part) -> Comparison:
        """`parts` has `part` quantized. Views: under the policy, and the exit head that reads `part`, on all texts."""
        fp32 = self.decisions
        logits_bc, exit_layers_b = fp32.logits_bc.copy(), fp32.exit_layers_b.copy()
        # A text that left before this part is decided by the same fp32 parts as before.
        rows = np.flatnonzero(exit_layers_b >= part.index)
        if rows.size:
            logits_bc[rows], exit_layers_b[rows] = self._runner.decide(parts, self._tokens.rows(rows.tolist()))
        views = [(fp32.logits_bc, logits_bc)]
        # The embeddings are read by layer 1's head.
        head_logits_bc = self._head_logits[max(1, part.index) - 1]
        if part.role != GATE and head_logits_bc is not None:
            views.append((head_logits_bc, self._next_head_logits(parts, part)))
        same_exit_b = exit_layers_b == fp32.exit_layers_b
        return replace(_compared(views, self._label_ids_b, same_exit_b), error=self.error(parts, part))

    def _feeds(self, part: Part) -> dict[str, NDArray[np.generic]]:
        before = part.index if part.role == EXIT else part.index - 1
        return {"hidden": self._hidden[before], "mask": self._mask_b11s}

    def _next_head_logits(self, parts: Parts, part: Part) -> NDArray[np.float32]:
        layer = max(1, part.index)
        if part.role == EXIT:
            logits_bc: NDArray[np.float32] | None = parts.run(part.name, self._feeds(part))[0]
        else:
            is_first = part.role == EMBEDDINGS
            hidden_bsh = parts.run(EMBEDDINGS, self._tokens.feeds())[0] if is_first else self._hidden[layer - 1]
            logits_bc = self._runner.run_layer(parts, layer, hidden_bsh, self._mask_b11s)[1]
        assert logits_bc is not None  # called only where a head follows
        return logits_bc


def _compared(
    views: Collection[tuple[NDArray[np.float32], NDArray[np.float32]]],
    label_ids_b: NDArray[np.int64] | None,
    exit_layers_b: NDArray[np.bool_],
) -> Comparison:
    """views: the logits of fp32 and those of the quantized side."""
    return Comparison(
        losses_vb=np.stack([paired_losses(fp32_bc, found_bc, label_ids_b) for fp32_bc, found_bc in views]),
        labels_vb=np.stack([fp32_bc.argmax(axis=1) == found_bc.argmax(axis=1) for fp32_bc, found_bc in views]),
        exit_layers_b=exit_layers_b,
    )
