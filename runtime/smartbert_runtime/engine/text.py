"""One text by itself: the way of `engine.run_batch`, with numbers where a batch needs arrays.

A text on a device mostly comes alone, and numpy's calls on one row would cost as much as a tenth of a small model.
Shape letters: b batch (1 here), s sequence, h hidden, c classes, l layers.
"""

from __future__ import annotations

import functools
import math
import time

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.parts import Outcome, Parts
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
    skips, exits = policy.skips_one(), policy.exits_one()
    run: list[int] = []
    skipped: list[int] = []
    skip_logit_l, entropy_l = [math.nan] * layers, [math.nan] * layers
    gates, bodies, heads = _names("gate", layers), _names("block" if fused else "layer", layers), _names("exit", layers)
    hidden_bsh, mask_b11s = parts.run("embeddings", tokens.feeds())
    feeds = {"hidden": hidden_bsh, "mask": mask_b11s}
    told: float | None = None  # what the block before said of the next gate

    for layer in range(1, layers + 1):
        logits_bc: NDArray[np.float32] | None = None
        runs = True
        if not policy.no_skip:
            if told is None:
                told = float(parts.run(gates[layer - 1], feeds)[0][0])
            skip_logit_l[layer - 1] = told
            runs = not skips(told)
            told = None
        if runs:
            run.append(layer)
            feeds["hidden"], *said = parts.run(bodies[layer - 1], feeds)
            if said:
                logits_bc = said[0]
            if len(said) > 1:
                told = float(said[1][0])
        else:
            skipped.append(layer)

        ends = layer == layers or len(run) >= most or (runs and time.perf_counter() >= overdue)
        if not ends and (policy.no_exit or not runs):
            continue
        if logits_bc is None:
            (logits_bc,) = parts.run(heads[layer - 1], feeds)
        if not (policy.no_exit or layer == layers):
            entropy_l[layer - 1], sure = exits(logits_bc, layer)
            ends = sure or ends
        if ends:
            break
    assert logits_bc is not None  # the last layer's head is always asked
    return Outcome(
        trace=Trace(
            layers_run=tuple(run),
            layers_skipped=tuple(skipped),
            exit_layer=layer,
            logits_c=logits_bc[0].copy(),  # a lane's is overwritten by the next text
            skip_logit_l=np.array(skip_logit_l),
            entropy_l=np.array(entropy_l),
        ),
        seconds=time.perf_counter() - started,
    )


@functools.cache
def _names(role: str, layers: int) -> tuple[str, ...]:
    return tuple(f"{role}_{layer:02d}" for layer in range(1, layers + 1))
