"""How a batch runs: layer by layer, each text deciding for itself; answered texts leave, texts that skip wait.

The rule is that of `engine/text.py`, which is easier to read; here it is applied to arrays with a row for each text.
`policy` makes every decision, `parts` compute every number.
Shape letters: b batch, s sequence, h hidden, c classes, l layers; r rows of the batch that run the layer, e rows whose
exit head is evaluated.
"""

from __future__ import annotations

import math
import time

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.batch_decisions import BatchDecisions
from smartbert_runtime.engine.parts import Outcome, Parts
from smartbert_runtime.package.part_names import BLOCK, EMBEDDINGS, EXIT, GATE, LAYER, part_name
from smartbert_runtime.tokenizer import Tokens


def run_batch(
    parts: Parts,
    tokens: Tokens,
    policy: Policy,
    *,
    layers: int,
    classes: int,
    fused: bool = False,
    since: float | None = None,
) -> list[Outcome]:
    """Classify one batch; outcome i belongs to row i. Arguments are those of `decide_batch`."""
    decided = decide_batch(parts, tokens, policy, layers=layers, classes=classes, fused=fused, since=since)
    return decided.outcomes()


def decide_batch(
    parts: Parts,
    tokens: Tokens,
    policy: Policy,
    *,
    layers: int,
    classes: int,
    fused: bool = False,
    since: float | None = None,
) -> BatchDecisions:
    """Run one batch through the layers that its rows need.

    Each row gets the answer that it would get in a batch of its own: a layer runs on just the rows that need it, and
    padding is masked out everywhere. Only a deadline, which the whole batch shares, makes rows depend on each other.
    fused: `block_i` runs layer i and, as far as the model has them, its exit head and gate i+1 in one call; a gate, and
    the last exit head, are evaluated separately only for rows that skipped the layer before.
    since: when the batch's deadline began to run, by `time.perf_counter`; default: now.
    """
    started = time.perf_counter()
    hidden_bsh, mask_b11s = parts.run(EMBEDDINGS, tokens.feeds())
    decided = BatchDecisions(len(hidden_bsh), layers, classes, started)
    rows = np.arange(len(hidden_bsh))  # the batch's rows that have no answer yet
    lengths = tokens.attention_mask_bs.sum(axis=1)
    history = policy.history(len(rows))
    deadline = math.inf
    if policy.deadline_ms is not None:
        deadline = (started if since is None else since) + policy.deadline_ms / 1000.0
    next_skip_logit_b = np.full(len(rows), np.nan)  # from the block before; NaN: the gate has to be evaluated

    for layer in range(1, layers + 1):
        # 1. The gates: which rows run this layer?
        runs = np.ones(len(rows), dtype=bool)
        if not policy.no_skip:
            skip_logit_b = _skip_logits(parts, layer, hidden_bsh, mask_b11s, next_skip_logit_b)
            runs = ~policy.skips(skip_logit_b)
            decided.skip_logit_bl[rows, layer - 1] = skip_logit_b
            decided.skipped_bl[rows[~runs], layer - 1] = True

        # 2. The layer.
        next_skip_logit_b = np.full(len(rows), np.nan)
        block_logits_rc: NDArray[np.float32] | None = None
        if runs.any():
            decided.run_bl[rows[runs], layer - 1] = True
            name = part_name(BLOCK if fused else LAYER, layer)
            hidden_bsh, *fused_outputs = _run_layer(parts, name, hidden_bsh, mask_b11s, runs)
            if fused_outputs:
                block_logits_rc = fused_outputs[0]
            if len(fused_outputs) > 1:
                next_skip_logit_b[runs] = fused_outputs[1]

        # 3. The exit heads: which rows have their answer?
        last = layer == layers
        must_answer = np.full(len(rows), last)
        if policy.max_layers is not None:
            must_answer |= decided.run_bl[rows].sum(axis=1) >= policy.max_layers
        if time.perf_counter() >= deadline:
            must_answer |= runs  # a row that skips costs nothing, and goes on to the next layer it runs
        evaluated = must_answer if policy.no_exit else must_answer | runs
        if not evaluated.any():
            continue
        logits_ec = _exit_logits(parts, layer, hidden_bsh, mask_b11s, evaluated, runs, block_logits_rc)
        answers_e = must_answer[evaluated]
        if not (policy.no_exit or last):  # at the last layer nothing is left to decide
            uncertainty_e = policy.uncertainty(logits_ec)
            decided.uncertainty_bl[rows[evaluated], layer - 1] = uncertainty_e
            answers_e = answers_e | policy.exits(logits_ec, layer, history, evaluated, uncertainty_b=uncertainty_e)
        if not answers_e.any():
            continue

        # 4. Rows with an answer leave the batch.
        decided.answer(rows[evaluated][answers_e], logits_ec[answers_e], layer)
        stays = np.ones(len(rows), dtype=bool)
        stays[np.flatnonzero(evaluated)[answers_e]] = False
        if not stays.any():
            break
        rows, next_skip_logit_b = rows[stays], next_skip_logit_b[stays]
        if history is not None:
            history.keep(stays)
        longest = int(lengths[rows].max())  # padding that only the leaving rows needed goes with them
        hidden_bsh, mask_b11s = hidden_bsh[stays, :longest], mask_b11s[stays, ..., :longest]
    return decided


def _skip_logits(
    parts: Parts,
    layer: int,
    hidden_bsh: NDArray[np.float32],
    mask_b11s: NDArray[np.float32],
    next_skip_logit_b: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Every row's skip logit; the gate is evaluated only for rows whose skip logit no block has returned (NaN)."""
    missing = np.isnan(next_skip_logit_b)
    if not missing.any():
        return next_skip_logit_b
    gate = part_name(GATE, layer)
    if missing.all():
        return parts.run(gate, {"hidden": hidden_bsh, "mask": mask_b11s})[0].astype(np.float64)
    skip_logit_b = next_skip_logit_b.copy()
    (skip_logit_b[missing],) = parts.run(gate, {"hidden": hidden_bsh[missing], "mask": mask_b11s[missing]})
    return skip_logit_b


def _run_layer(
    parts: Parts,
    name: str,
    hidden_bsh: NDArray[np.float32],
    mask_b11s: NDArray[np.float32],
    runs: NDArray[np.bool_],
) -> list[NDArray[np.float32]]:
    """Run the layer or block on the rows in `runs`: every row's hidden state, and a block's other outputs for these."""
    if runs.all():
        return parts.run(name, {"hidden": hidden_bsh, "mask": mask_b11s})
    mixed_bsh = hidden_bsh.copy()
    mixed_bsh[runs], *fused_outputs = parts.run(name, {"hidden": hidden_bsh[runs], "mask": mask_b11s[runs]})
    return [mixed_bsh, *fused_outputs]


def _exit_logits(
    parts: Parts,
    layer: int,
    hidden_bsh: NDArray[np.float32],
    mask_b11s: NDArray[np.float32],
    evaluated: NDArray[np.bool_],
    runs: NDArray[np.bool_],
    block_logits_rc: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """The logits (e,c) of the rows in `evaluated`; block_logits_rc: those of the rows in `runs`, from a fused block."""
    missing = evaluated & ~runs if block_logits_rc is not None else evaluated
    if block_logits_rc is None or missing.any():
        feeds = {"hidden": hidden_bsh[missing], "mask": mask_b11s[missing]}
        (logits_nc,) = parts.run(part_name(EXIT, layer), feeds)
        if block_logits_rc is None:
            return logits_nc
        logits_bc = np.empty((len(evaluated), logits_nc.shape[1]), dtype=np.float32)
        logits_bc[missing], logits_bc[runs] = logits_nc, block_logits_rc
        return logits_bc[evaluated]
    return block_logits_rc[evaluated[runs]]
