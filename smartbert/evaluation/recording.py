"""Passes of a model over labeled texts, every gate and every exit head evaluated.

Shape letters: r rows (texts), l layers, c classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from datasets import Dataset
from numpy.typing import NDArray
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

from smartbert.data.splits import Split
from smartbert.evaluation.decisions import Decisions, Recording
from smartbert.evaluation.macs import MacCounter, plain_macs
from smartbert.plain_classifier import PlainClassifier
from smartbert.trained_model import Classifier, backbone_config, has_gates, label_names
from smartbert_runtime.decisions.policy import Policy


@torch.inference_mode()
def record(
    model: Classifier,
    split: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    policy: Policy,
    *,
    batch_size: int = 32,
    tick: Callable[[int], None] = lambda texts: None,
) -> Recording:
    """What every gate and exit head returns for each text of a tokenized `split`, skipping as `policy` does.

    In float32 whatever the model was trained in: thresholds are chosen with the numbers that the package will compute.
    Texts of like length share a batch; the rows come back in the split's order.
    """
    model.eval()
    device = next(model.parameters()).device
    collate = DataCollatorWithPadding(tokenizer)
    order = np.argsort(token_counts(split), kind="stable")
    skip_logits, logits = [], []
    for first in range(0, len(order), batch_size):
        rows = split.select(order[first : first + batch_size])
        batch = collate([{name: row[name] for name in rows.column_names if name != "labels"} for row in rows])
        run = model.full_pass(
            **{name: tensor.to(device) for name, tensor in batch.items()},
            skip_threshold=policy.skip_threshold,
            no_skip=policy.no_skip,
        )
        skip_logits.append(run.skip_logits_bl.float().cpu().numpy())
        logits.append(run.logits_blc.float().cpu().numpy())
        tick(len(rows))
    back = np.argsort(order, kind="stable")
    return Recording(
        skip_logits_rl=np.concatenate(skip_logits)[back],
        logits_rlc=np.concatenate(logits)[back],
        label_ids_r=np.asarray(split["labels"], dtype=np.int64),
    )


@dataclass(frozen=True, kw_only=True)
class Passes:
    """The recorded passes that an evaluation is computed from.

    as_given: skipping as the policy does. gates_off: no layer skipped; the same recording for a model without gates.
    skipping: skip threshold -> the pass at it. tokens_r: each text's real length.
    """

    as_given: Recording
    gates_off: Recording
    skipping: dict[float, Recording]
    tokens_r: NDArray[np.int64]


def record_passes(
    model: Classifier,
    split: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    policy: Policy,
    *,
    skip_thresholds: Sequence[float] = (),
    batch_size: int = 32,
    tick: Callable[[int], None] = lambda texts: None,
) -> Passes:
    """One pass as the policy skips, one with gates off, one a skip threshold; a model without gates needs only one."""

    def pass_with(skipping: Policy) -> Recording:
        return record(model, split, tokenizer, skipping, batch_size=batch_size, tick=tick)

    as_given = pass_with(policy)
    gated = has_gates(model)
    return Passes(
        as_given=as_given,
        gates_off=pass_with(replace(policy, no_skip=True)) if gated else as_given,
        skipping={value: pass_with(replace(policy, skip_threshold=value)) for value in skip_thresholds if gated},
        tokens_r=token_counts(split),
    )


def tokenize(split: Split, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Dataset:
    """Texts cut to `max_length` tokens, with their label ids, for the model."""
    pairs = list(split.pairs) if split.pairs is not None else None
    encoded = tokenizer(list(split.texts), pairs, truncation=True, max_length=max_length)
    columns = {name: encoded[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded}
    return Dataset.from_dict({**columns, "labels": list(split.label_ids)})


def token_counts(split: Dataset) -> NDArray[np.int64]:
    """Each text's real length in tokens (r)."""
    return np.asarray([len(ids) for ids in split["input_ids"]], dtype=np.int64)


def mac_cost(
    model: Classifier, tokens_r: NDArray[np.int64], *, gates: bool = True, exits: bool = True
) -> Callable[[Decisions], NDArray[np.int64]]:
    """MAC of each text's path through `model`; gates, exits: false when they are switched off and not evaluated."""
    if isinstance(model, PlainClassifier):
        macs_r = plain_macs(backbone_config(model), len(label_names(model)), tokens_r, pooling=model.pooling)
        return lambda decisions: macs_r
    counter = MacCounter(config=model.config)
    return lambda decisions: counter.path(tokens_r, decisions, gates=gates, exits=exits)
