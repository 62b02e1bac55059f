"""Records PyTorch's answers: per part over probes, end to end over texts. Shape letters: l layers, b batch, s, h."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.parity.compare import DECISION_MARGIN
from smartbert_runtime.parity.golden import Golden, Probe
from smartbert_runtime.tokenizer import Tokens


@torch.inference_mode()
def record_probe(model: SmartBertForSequenceClassification, tokens: Tokens) -> Probe:
    """Run a batch through every layer and record what each part read and returned."""
    hidden_bsh, mask_b11s = model.embed(
        *(
            torch.from_numpy(array)
            for array in (tokens.input_ids_bs, tokens.attention_mask_bs, tokens.token_type_ids_bs)
        )
    )
    hidden, skip_logits, logits = [hidden_bsh], [], []
    for step in model.layer_steps(hidden_bsh, mask_b11s, no_skip=True):
        skip_logits.append(step.skip_logit_b)
        hidden.append(step.output_bsh)
        has_head = model.config.early_exits or step.index == model.config.layers - 1
        unknown_bc = step.output_bsh.new_full((step.output_bsh.shape[0], model.config.num_labels), math.nan)
        logits.append(model.exits[step.index](step.output_bsh, mask_b11s) if has_head else unknown_bc)
    return Probe(
        tokens=tokens,
        mask_b11s=mask_b11s.numpy(),
        hidden_lbsh=torch.stack(hidden).numpy(),
        skip_logit_lb=torch.stack(skip_logits).numpy(),
        logits_lbc=torch.stack(logits).numpy(),
    )


def record(
    model: SmartBertForSequenceClassification, probes: Sequence[Tokens], tokens: Tokens, policy: Policy
) -> Golden:
    """PyTorch's answers for these probes and texts."""
    return Golden(
        probes=tuple(record_probe(model, probe) for probe in probes),
        tokens=tokens,
        traces=tuple(trace_rows(model, tokens, policy)),
    )


def clear_calls(golden: Golden, policy: Policy) -> list[int]:
    """Rows without a decision so near its threshold that another machine's rounding could turn it."""
    return [row for row, trace in enumerate(golden.traces) if trace.margin(policy) > DECISION_MARGIN]
