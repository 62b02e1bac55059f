"""What a policy decides about texts whose gates and exit heads were all recorded: the engine, run on recorded outputs.

Early exits do not change what later layers compute, so one pass with every head evaluated holds the answers for every
exit rule and threshold; skipped layers do, so a recording belongs to one skip threshold.
Shape letters: r rows (texts), l layers, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.batch import decide_batch
from smartbert_runtime.engine.batch_decisions import BatchDecisions
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.package.part_names import EMBEDDINGS, GATE, LAYER, role_and_layer
from smartbert_runtime.tokenizer import Tokens


def decide_recorded(
    skip_logit_rl: NDArray[np.float32], logits_rlc: NDArray[np.float32], policy: Policy
) -> BatchDecisions:
    """The decisions of `engine.batch` for these rows, under the whole policy: rule, thresholds, limits.

    skip_logit_rl: -inf where the model has no gates. logits_rlc: NaN where it has no head; a model whose only head is
    the last one never exits early.
    Raises ConfigError for a deadline: a recording has no clock.
    """
    if policy.deadline_ms is not None:
        raise ConfigError("a deadline cannot be applied to recorded outputs", hint="leave out deadline_ms")
    rows, layers, classes = logits_rlc.shape
    policy = replace(
        policy,
        no_skip=policy.no_skip or bool(np.isneginf(skip_logit_rl).all()),
        no_exit=policy.no_exit or bool(np.isnan(logits_rlc[:, :-1]).any()),
    )
    ones_r1 = np.ones((rows, 1), dtype=np.int64)
    tokens = Tokens(
        input_ids_bs=np.arange(rows, dtype=np.int64)[:, None],
        attention_mask_bs=ones_r1,
        token_type_ids_bs=np.zeros_like(ones_r1),
        truncated=(False,) * rows,
    )
    return decide_batch(_Recorded(skip_logit_rl, logits_rlc), tokens, policy, layers=layers, classes=classes)


class _Recorded:
    """`Parts` that return what was recorded; the hidden state carries each row's number through the layers."""

    def __init__(self, skip_logit_rl: NDArray[np.float32], logits_rlc: NDArray[np.float32]) -> None:
        self._skip_logit_rl, self._logits_rlc = skip_logit_rl, logits_rlc

    def run(self, part: str, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        """The recorded outputs of the rows in `feeds`."""
        if part == EMBEDDINGS:
            # float32 counts exactly to 16 million rows.
            numbers_b11 = feeds["input_ids"].astype(np.float32)[:, :, None]
            return [numbers_b11, np.zeros((len(numbers_b11), 1, 1, 1), dtype=np.float32)]
        role, layer = role_and_layer(part)
        hidden_b11 = np.asarray(feeds["hidden"], dtype=np.float32)
        if role == LAYER:
            return [hidden_b11]
        rows, place = hidden_b11[:, 0, 0].astype(np.int64), layer - 1
        return [self._skip_logit_rl[rows, place] if role == GATE else self._logits_rlc[rows, place]]
