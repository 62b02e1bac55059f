"""One text by itself: the way of `engine.run_batch`, with numbers where a batch needs arrays.

A text on a device mostly comes alone, and numpy's calls on one row would cost as much as a tenth of a small model.
Shape letters: b batch (1 here), s sequence, h hidden, c classes, l layers.
"""

from __future__ import annotations

import math
import time

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.engine import Outcome, Parts
from smartbert_runtime.policy import Policy
from smartbert_runtime.rules import normalised_entropy
from smartbert_runtime.tokenizer import Tokens
from smartbert_runtime.trace import Trace


def run_alone(
    parts: Parts, tokens: Tokens, policy: Policy, *, layers: int, fused: bool = False, since: float | None = None
) -> Outcome:
    """Classify a batch of one; arguments are those of `engine.run_batch`, and so are the decisions."""
    started = time.perf_counter()
    overdue = math.inf
    if policy.deadline_ms is not None:
        overdue = (started if since is None else since) + policy.deadline_ms / 1000.0
    most = layers if policy.max_layers is None else policy.max_layers
    history = policy.history(1)
    run: list[int] = []
    skipped: list[int] = []
    skip_logit_l, entropy_l = np.full(layers, np.nan), np.full(layers, np.nan)
    kind = "stage" if fused else "layer"
    hidden_bsh, mask_b11s = parts.run("embeddings", tokens.feeds())
    told: float | None = None  # what the stage before said of the next gate

    for layer in range(1, layers + 1):
        logits_bc: NDArray[np.float32] | None = None
        runs = True
        if not policy.no_skip:
            if told is None:
                told = float(parts.run(f"gate_{layer:02d}", {"hidden": hidden_bsh, "mask": mask_b11s})[0][0])
            skip_logit_l[layer - 1] = told
            runs = not policy.skips_one(told)
            told = None
        if runs:
            run.append(layer)
            said = parts.run(f"{kind}_{layer:02d}", {"hidden": hidden_bsh, "mask": mask_b11s})
            hidden_bsh = said[0]
            if len(said) > 1:
                logits_bc = said[1]
            if len(said) > 2:
                told = float(said[2][0])
        else:
            skipped.append(layer)

        ends = layer == layers or len(run) >= most or (runs and time.perf_counter() >= overdue)
        if not ends and (policy.no_exit or not runs):
            continue
        if logits_bc is None:
            (logits_bc,) = parts.run(f"exit_{layer:02d}", {"hidden": hidden_bsh, "mask": mask_b11s})
        if not (policy.no_exit or layer == layers):
            entropy_b = normalised_entropy(logits_bc)
            entropy_l[layer - 1] = entropy_b[0]
            ends = bool(policy.exits(logits_bc, layer, history, entropy_b=entropy_b)[0]) or ends
        if ends:
            break
    assert logits_bc is not None  # the last layer's head is always asked
    return Outcome(
        trace=Trace(
            layers_run=tuple(run),
            layers_skipped=tuple(skipped),
            exit_layer=layer,
            logits_c=logits_bc[0],
            skip_logit_l=skip_logit_l,
            entropy_l=entropy_l,
        ),
        seconds=time.perf_counter() - started,
    )
