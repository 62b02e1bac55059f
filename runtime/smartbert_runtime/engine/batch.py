"""How a batch runs: layer by layer, each text deciding alone; texts that answered leave, texts that skip wait.

This is the file to read first. `policy` is asked for every decision, `parts` for every number.
Shape letters: b batch, s sequence, h hidden, c classes, l layers.
"""

from __future__ import annotations

import math
import time

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.decisions.rules import normalized_entropy
from smartbert_runtime.engine.parts import Outcome, Parts
from smartbert_runtime.tokenizer import Tokens
from smartbert_runtime.trace import Trace


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
    """Classify one batch; outcome i belongs to row i.

    Each row's answer is the one it would get alone: a layer is run on just the rows that want it, and padding is
    masked out of everything. Only a deadline, which is the whole batch's, makes rows depend on their company.
    fused: `block_i` runs layer i, its exit head and gate i+1 in one call, those of them that there are; gates and the
    last exit head are asked by themselves only about rows that skipped the layer before.
    since: what `time.perf_counter` said when the batch's deadline began to run; default: now.
    """
    started = time.perf_counter()
    hidden_bsh, mask_b11s = parts.run("embeddings", tokens.feeds())
    journal = _Journal(len(hidden_bsh), layers, classes, started)
    rows = np.arange(len(hidden_bsh))  # the batch's rows that are still on their way
    lengths = tokens.attention_mask_bs.sum(axis=1)
    history = policy.history(len(rows))
    since = started if since is None else since
    overdue = math.inf if policy.deadline_ms is None else since + policy.deadline_ms / 1000.0
    told_b = np.full(len(rows), np.nan)  # what the block before said of the next gate; NaN: it has to be asked

    for layer in range(1, layers + 1):
        runs = np.ones(len(rows), dtype=bool)
        if not policy.no_skip:
            skip_logit_b = _ask_gate(parts, layer, hidden_bsh, mask_b11s, told_b)
            runs = ~policy.skips(skip_logit_b)
            journal.skip_logit_bl[rows, layer - 1] = skip_logit_b
            journal.skipped_bl[rows[~runs], layer - 1] = True
        told_b = np.full(len(rows), np.nan)
        block_logits_rc: NDArray[np.float32] | None = None
        if runs.any():
            journal.run_bl[rows[runs], layer - 1] = True
            name = f"block_{layer:02d}" if fused else f"layer_{layer:02d}"
            hidden_bsh, *told = _run_layer(parts, name, hidden_bsh, mask_b11s, runs)
            if told:
                block_logits_rc = told[0]
            if len(told) > 1:
                told_b[runs] = told[1]

        last = layer == layers
        ends = np.full(len(rows), last)
        if policy.max_layers is not None:
            ends |= journal.run_bl[rows].sum(axis=1) >= policy.max_layers
        if time.perf_counter() >= overdue:
            ends |= runs  # a row that skips costs nothing, and goes on to the next layer it runs
        asked = ends if policy.no_exit else ends | runs
        if not asked.any():
            continue
        logits_bc = _ask_exit(parts, layer, hidden_bsh, mask_b11s, asked, runs, block_logits_rc)
        answers = ends[asked]
        if not (policy.no_exit or last):
            # At the last layer there is nothing left to decide.
            entropy_b = normalized_entropy(logits_bc)
            journal.entropy_bl[rows[asked], layer - 1] = entropy_b
            answers = answers | policy.exits(logits_bc, layer, history, asked, entropy_b=entropy_b)
        if not answers.any():
            continue
        journal.answer(rows[asked][answers], logits_bc[answers], layer)
        stays = np.ones(len(rows), dtype=bool)
        stays[np.flatnonzero(asked)[answers]] = False
        if not stays.any():
            break
        rows, told_b = rows[stays], told_b[stays]
        if history is not None:
            history.keep(stays)
        longest = int(lengths[rows].max())  # padding that only the leavers needed goes with them
        hidden_bsh, mask_b11s = hidden_bsh[stays, :longest], mask_b11s[stays, ..., :longest]
    return journal.outcomes()


def _run_layer(
    parts: Parts,
    name: str,
    hidden_bsh: NDArray[np.float32],
    mask_b11s: NDArray[np.float32],
    runs: NDArray[np.bool_],
) -> list[NDArray[np.float32]]:
    """The layer or block applied to the rows that run it: everyone's state, and what else it said of those rows."""
    if runs.all():
        return parts.run(name, {"hidden": hidden_bsh, "mask": mask_b11s})
    mixed_bsh = hidden_bsh.copy()
    mixed_bsh[runs], *told = parts.run(name, {"hidden": hidden_bsh[runs], "mask": mask_b11s[runs]})
    return [mixed_bsh, *told]


def _ask_gate(
    parts: Parts,
    layer: int,
    hidden_bsh: NDArray[np.float32],
    mask_b11s: NDArray[np.float32],
    told_b: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Everyone's skip logit, the gate asked only about rows of which no block has told it."""
    silent = np.isnan(told_b)
    if not silent.any():
        return told_b
    if silent.all():
        return parts.run(f"gate_{layer:02d}", {"hidden": hidden_bsh, "mask": mask_b11s})[0].astype(np.float64)
    skip_logit_b = told_b.copy()
    (skip_logit_b[silent],) = parts.run(f"gate_{layer:02d}", {"hidden": hidden_bsh[silent], "mask": mask_b11s[silent]})
    return skip_logit_b


def _ask_exit(
    parts: Parts,
    layer: int,
    hidden_bsh: NDArray[np.float32],
    mask_b11s: NDArray[np.float32],
    asked: NDArray[np.bool_],
    runs: NDArray[np.bool_],
    block_logits_rc: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    """The logits of the rows in `asked`; `block_logits_rc` are those that the block told of the rows in `runs`."""
    silent = asked & ~runs if block_logits_rc is not None else asked
    if block_logits_rc is None or silent.any():
        (logits_nc,) = parts.run(f"exit_{layer:02d}", {"hidden": hidden_bsh[silent], "mask": mask_b11s[silent]})
        if block_logits_rc is None:
            return logits_nc
        logits_bc = np.empty((len(asked), logits_nc.shape[1]), dtype=np.float32)
        logits_bc[silent], logits_bc[runs] = logits_nc, block_logits_rc
        return logits_bc[asked]
    return block_logits_rc[asked[runs]]


class _Journal:
    """What has been decided so far, one row a text."""

    def __init__(self, batch: int, layers: int, classes: int, started: float) -> None:
        self.started = started
        self.run_bl = np.zeros((batch, layers), dtype=bool)
        self.skipped_bl = np.zeros((batch, layers), dtype=bool)
        self.skip_logit_bl = np.full((batch, layers), np.nan)
        self.entropy_bl = np.full((batch, layers), np.nan)
        self.logits_bc = np.zeros((batch, classes), dtype=np.float32)
        self.exit_layer_b = np.zeros(batch, dtype=np.int64)
        self.seconds_b = np.zeros(batch)

    def answer(self, rows: NDArray[np.int64], logits_bc: NDArray[np.float32], layer: int) -> None:
        """These rows are done."""
        self.logits_bc[rows] = logits_bc
        self.exit_layer_b[rows] = layer
        self.seconds_b[rows] = time.perf_counter() - self.started

    def outcomes(self) -> list[Outcome]:
        """One a row, in the batch's order."""
        run, skipped = _layers(self.run_bl), _layers(self.skipped_bl)
        exit_layer, seconds = self.exit_layer_b.tolist(), self.seconds_b.tolist()
        return [
            Outcome(
                trace=Trace(
                    layers_run=run[row],
                    layers_skipped=skipped[row],
                    exit_layer=exit_layer[row],
                    logits_c=self.logits_bc[row],
                    skip_logit_l=self.skip_logit_bl[row],
                    entropy_l=self.entropy_bl[row],
                ),
                seconds=seconds[row],
            )
            for row in range(len(exit_layer))
        ]


def _layers(marked_bl: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """Of each row the layers that are marked, from 1."""
    return [tuple(layer for layer, marked in enumerate(row, start=1) if marked) for row in marked_bl.tolist()]
