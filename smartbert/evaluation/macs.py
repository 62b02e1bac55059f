"""Multiply-accumulates of every part at a text's real length: matrix products only, attention counted.

1 MAC is 2 FLOP. Embedding look-ups, additions, norms, softmax and activations are left out, as everywhere in the
field. Gates and exit heads are counted in their reduced form, which is equal: one query, the key projection
is absorbed into it, and the value projection acts on what the attention has mixed.

Shape letters: r rows (texts), l layers, s tokens, h hidden, w head width, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smartbert.configuration import LEARNED, MEAN, SmartBertConfig
from smartbert.evaluation.decisions import Decisions


def layer_macs(backbone_config: dict[str, Any], tokens_r: NDArray[np.int64]) -> NDArray[np.int64]:
    """One encoder layer (r): four h x h projections, two h x f ones, and scores and mixing of s x s x h each.

    BERT-base at 128 tokens: 931,135,488.
    """
    hidden, inner = int(backbone_config["hidden_size"]), int(backbone_config["intermediate_size"])
    return tokens_r * (4 * hidden * hidden + 2 * hidden * inner) + 2 * tokens_r * tokens_r * hidden


def plain_macs(
    backbone_config: dict[str, Any], classes: int, tokens_r: NDArray[np.int64], *, pooling: str = "mean"
) -> NDArray[np.int64]:
    """A plainly fine-tuned classifier (r): all layers, a pooler and h x c.

    The pooler is the mean of all tokens (s x h) or a dense layer on token 0 (h x h).
    """
    hidden, layers = int(backbone_config["hidden_size"]), int(backbone_config["num_hidden_layers"])
    pooled = tokens_r * hidden if pooling == "mean" else hidden * hidden
    return layers * layer_macs(backbone_config, tokens_r) + pooled + hidden * classes


@dataclass(frozen=True, kw_only=True)
class MacCounter:
    """The cost of each decision and answer of one model."""

    config: SmartBertConfig

    def layer(self, tokens_r: NDArray[np.int64]) -> NDArray[np.int64]:
        """One encoder layer."""
        return layer_macs(self.config.backbone_config, tokens_r)

    def gate(self, tokens_r: NDArray[np.int64]) -> NDArray[np.int64]:
        """One skipping gate: 0 for a model without gates. Its value projection is folded into the last linear."""
        if not self.config.gates:
            return np.zeros_like(tokens_r)
        return self._pooled(tokens_r, self.config.gate_heads) + self.config.gate_heads * self.config.head_width

    def exit(self, tokens_r: NDArray[np.int64]) -> NDArray[np.int64]:
        """One exit head: its attention, the dense layer (w x w) and the classifier (w x c)."""
        width = self.config.head_width
        # The values' product, or, with learned queries, the wider input of the dense layer.
        values = (self.config.exit_heads - 1) * width * width if self.config.head_query == LEARNED else width * width
        behind = values + width * width + width * self.config.num_labels
        return self._pooled(tokens_r, self.config.exit_heads) + behind

    def _pooled(self, tokens_r: NDArray[np.int64], heads: int) -> NDArray[np.int64]:
        """h -> w for every token, then one query against all: w x w for it, w x w for the keys; none where learned."""
        width = self.config.head_width
        if self.config.head_query == LEARNED:
            return tokens_r * (self.config.hidden_size * width + 2 * heads * width)
        mean = tokens_r * width if self.config.head_query == MEAN else 0
        return tokens_r * (self.config.hidden_size * width + 2 * heads * width) + mean + 2 * width * width

    def path(
        self, tokens_r: NDArray[np.int64], decisions: Decisions, *, gates: bool = True, exits: bool = True
    ) -> NDArray[np.int64]:
        """What each text's path costs: layers run, gates and exit heads evaluated up to its exit.

        gates, exits: false when they are switched off and so not evaluated; the last head always answers.
        """
        reached_rl, skips_rl = decisions.reached_rl, decisions.skips_rl
        evaluated_rl = reached_rl & ~skips_rl if exits else np.zeros_like(skips_rl)
        # The last head answers whether or not its layer ran.
        evaluated_rl[:, -1] = reached_rl[:, -1]
        gates_r = reached_rl.sum(axis=1) if gates else 0
        cost_r: NDArray[np.int64] = (
            decisions.layers_run_r * self.layer(tokens_r)
            + gates_r * self.gate(tokens_r)
            + evaluated_rl.sum(axis=1) * self.exit(tokens_r)
        )
        return cost_r
