"""How one text runs through the layers: SmartBERT's inference rule, step by step. Start reading here.

For each layer, from the first:
1. The gate before it returns a skip logit. If it is high enough, the layer is skipped: the hidden state stays as it is.
2. Otherwise the layer runs, and the exit head after it returns logits. If they are certain enough, they are the answer.
If no head was certain enough, the last layer's head answers, also for a text that skipped the last layer.

`policy` makes every decision (decisions/policy.py), `parts` compute every number (sessions/sessions.py).
`engine/batch.py` is the same rule for many texts at once. This is the single-text fast path, with numbers instead of
arrays: on a device most texts come one at a time, and numpy's overhead on one row is up to a tenth of a small model's
time.
Shape letters: b batch (1 here), s sequence, h hidden, c classes, l layers.
"""

from __future__ import annotations

import math
import time

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.parts import Outcome, Parts
from smartbert_runtime.package.part_names import BLOCK, EMBEDDINGS, EXIT, GATE, LAYER, part_name
from smartbert_runtime.tokenizer import Tokens
from smartbert_runtime.trace import Trace


def run_text(
    parts: Parts, tokens: Tokens, policy: Policy, *, layers: int, fused: bool = False, since: float | None = None
) -> Outcome:
    """Classify a batch of one; the arguments are those of `engine.batch.decide_batch`, and so are the decisions."""
    started = time.perf_counter()
    deadline = math.inf
    if policy.deadline_ms is not None:
        deadline = (started if since is None else since) + policy.deadline_ms / 1000.0
    max_layers = layers if policy.max_layers is None else policy.max_layers
    skips, exits = policy.skips_one(), policy.exits_one()
    layers_run: list[int] = []
    layers_skipped: list[int] = []
    skip_logit_l, uncertainty_l = [math.nan] * layers, [math.nan] * layers  # NaN: not evaluated

    hidden_bsh, mask_b11s = parts.run(EMBEDDINGS, tokens.feeds())
    feeds = {"hidden": hidden_bsh, "mask": mask_b11s}
    next_skip_logit: float | None = None  # a fused block evaluates the next layer's gate too

    for layer in range(1, layers + 1):
        # 1. The gate: run this layer, or skip it?
        runs = True
        if not policy.no_skip:
            if next_skip_logit is None:
                (skip_logit_b,) = parts.run(part_name(GATE, layer), feeds)
                next_skip_logit = float(skip_logit_b[0])
            skip_logit_l[layer - 1] = next_skip_logit
            runs = not skips(next_skip_logit)
            next_skip_logit = None

        # 2. The layer; as a fused block it returns its exit head's logits and the next gate's skip logit as well.
        logits_bc: NDArray[np.float32] | None = None
        if runs:
            layers_run.append(layer)
            feeds["hidden"], *fused_outputs = parts.run(part_name(BLOCK if fused else LAYER, layer), feeds)
            if fused_outputs:
                logits_bc = fused_outputs[0]
            if len(fused_outputs) > 1:
                next_skip_logit = float(fused_outputs[1][0])
        else:
            layers_skipped.append(layer)

        # 3. The exit head: is this the answer?
        must_answer = layer == layers or len(layers_run) >= max_layers or (runs and time.perf_counter() >= deadline)
        if not must_answer and (policy.no_exit or not runs):
            continue
        if logits_bc is None:
            (logits_bc,) = parts.run(part_name(EXIT, layer), feeds)
        certain = False
        if not (policy.no_exit or layer == layers):  # at the last layer nothing is left to decide
            uncertainty_l[layer - 1], certain = exits(logits_bc, layer)
        if certain or must_answer:
            break

    assert logits_bc is not None  # the last layer's head is always evaluated
    return Outcome(
        trace=Trace(
            layers_run=tuple(layers_run),
            layers_skipped=tuple(layers_skipped),
            exit_layer=layer,
            logits_c=logits_bc[0],
            skip_logit_l=np.array(skip_logit_l),
            uncertainty_l=np.array(uncertainty_l),
        ),
        seconds=time.perf_counter() - started,
    )
