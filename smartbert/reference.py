"""The inference rule for one text over PyTorch's layer steps: the oracle that parity is measured against.

Shape letters: b batch (here 1), s sequence, l layers.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_runtime.decisions.policy import Policy
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

    Follows rule, thresholds, `no_skip`, `no_exit` and `max_layers`; a deadline is time, which an oracle does not have.
    """
    history = policy.history(1)
    layers = model.config.layers
    run: list[int] = []
    skipped: list[int] = []
    skip_logit_l, uncertainty_l = np.full(layers, np.nan), np.full(layers, np.nan)
    hidden_bsh, mask_b11s = model.embed(
        torch.tensor([input_ids_s]),
        torch.ones(1, len(input_ids_s), dtype=torch.int64),
        torch.tensor([token_type_ids_s]),
    )
    for step in model.layer_steps(hidden_bsh, mask_b11s, skip_threshold=policy.skip_threshold, no_skip=policy.no_skip):
        layer, last = step.index + 1, step.index == layers - 1
        if not policy.no_skip:
            skip_logit_l[step.index] = float(step.skip_logit_b[0])
        skips = bool(step.skips_b[0])
        (skipped if skips else run).append(layer)
        ends = last or (policy.max_layers is not None and len(run) >= policy.max_layers)
        if not ends and (skips or policy.no_exit):
            continue
        logits_bc = _numpy(model.exits[step.index](step.hidden_bsh, mask_b11s))
        if not (policy.no_exit or last):
            uncertainty_l[step.index] = policy.uncertainty(logits_bc)[0]
            ends = bool(policy.exits(logits_bc, layer, history)[0]) or ends
        if ends:
            break
    return Trace(
        layers_run=tuple(run),
        layers_skipped=tuple(skipped),
        exit_layer=layer,
        logits_c=logits_bc[0],
        skip_logit_l=skip_logit_l,
        uncertainty_l=uncertainty_l,
    )


def trace_rows(model: SmartBertForSequenceClassification, tokens: Tokens, policy: Policy) -> list[Trace]:
    """`trace_one` for each row of a batch, its padding cut off."""
    lengths = tokens.attention_mask_bs.sum(axis=1).tolist()
    return [
        trace_one(model, ids_s[:length].tolist(), types_s[:length].tolist(), policy)
        for ids_s, types_s, length in zip(tokens.input_ids_bs, tokens.token_type_ids_bs, lengths, strict=True)
    ]


def _numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    return np.asarray(tensor.detach().to(torch.float32).numpy())
