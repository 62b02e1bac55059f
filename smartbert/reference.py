"""The inference rule written out in plain PyTorch, one text at a time: the oracle that parity is measured against.

Shape letters: b batch (here 1), s sequence, l layers.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.decisions.rules import normalized_entropy
from smartbert_runtime.tokenizer import Tokens
from smartbert_runtime.trace import Trace


@torch.inference_mode()
def trace_one(
    model: SmartBertForSequenceClassification,
    input_ids_s: list[int],
    token_type_ids_s: list[int],
    policy: Policy,
) -> Trace:
    """One text, unpadded (Hu et al., IJCAI 2023, inference): gate? layer? exit?

    `policy.max_layers` and `deadline_ms` are not followed; rule, thresholds, `no_skip` and `no_exit` are.
    """
    history = policy.history(1)
    layers = model.config.layers
    run, skipped = [], []
    skip_logit_l, entropy_l = np.full(layers, np.nan), np.full(layers, np.nan)
    x_bsh, mask_b11s = model.embed(
        torch.tensor([input_ids_s]),
        torch.ones(1, len(input_ids_s), dtype=torch.int64),
        torch.tensor([token_type_ids_s]),
    )
    for index in range(layers):
        if not policy.no_skip:
            skip_logit_b = _numpy(model.skip_logit(index, x_bsh, mask_b11s))
            skip_logit_l[index] = skip_logit_b[0]
            if policy.skips(skip_logit_b)[0]:
                skipped.append(index + 1)
                continue
        x_bsh = model.run_layer(index, x_bsh, mask_b11s)
        run.append(index + 1)
        if policy.no_exit or index == layers - 1:
            continue
        logits_bc = _numpy(model.exits[index](x_bsh, mask_b11s))
        entropy_l[index] = normalized_entropy(logits_bc)[0]
        if policy.exits(logits_bc, index + 1, history)[0]:
            return _trace(run, skipped, index + 1, logits_bc, skip_logit_l, entropy_l)
    logits_bc = _numpy(model.exits[-1](x_bsh, mask_b11s))
    return _trace(run, skipped, layers, logits_bc, skip_logit_l, entropy_l)


def trace_rows(model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy) -> list[Trace]:
    """`trace_one` for each row of a batch, its padding cut off."""
    lengths = tokens.attention_mask_bs.sum(axis=1).tolist()
    return [
        trace_one(model, ids_s[:length].tolist(), types_s[:length].tolist(), policy)
        for ids_s, types_s, length in zip(tokens.input_ids_bs, tokens.token_type_ids_bs, lengths, strict=True)
    ]


def _numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().to(torch.float32).numpy())


def _trace(
    run: list[int],
    skipped: list[int],
    exit_layer: int,
    logits_bc: NDArray[np.float32],
    skip_logit_l: NDArray[np.float64],
    entropy_l: NDArray[np.float64],
) -> Trace:
    return Trace(
        layers_run=tuple(run),
        layers_skipped=tuple(skipped),
        exit_layer=exit_layer,
        logits_c=logits_bc[0],
        skip_logit_l=skip_logit_l,
        entropy_l=entropy_l,
    )
