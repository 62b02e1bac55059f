"""The activation ranges that a checkpoint carries, recorded on some of its training texts."""

from __future__ import annotations

import numpy as np
from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from smartbert.activations.ranges import ActivationRanges
from smartbert.activations.record import ENOUGH_TEXTS, record_ranges
from smartbert.trained_model import Classifier, policy_of
from smartbert_runtime.tokenizer import Tokens


def ranges_of_training_texts(
    classifier: Classifier, train: Dataset, tokenizer: PreTrainedTokenizerFast, *, seed: int
) -> ActivationRanges:
    """Of ENOUGH_TEXTS tokenized training texts drawn with `seed`, or all where there are fewer."""
    drawn = np.random.default_rng(seed).permutation(len(train))[:ENOUGH_TEXTS]
    return record_ranges(classifier, _padded(train.select(sorted(drawn.tolist())), tokenizer), policy_of(classifier))


def _padded(split: Dataset, tokenizer: PreTrainedTokenizerFast) -> Tokens:
    ids = split["input_ids"]
    types = split["token_type_ids"] if "token_type_ids" in split.column_names else [[0] * len(row) for row in ids]
    shape = len(ids), max(len(row) for row in ids)
    ids_bs = np.full(shape, tokenizer.pad_token_id or 0, dtype=np.int64)
    mask_bs, types_bs = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for number, (row, row_types) in enumerate(zip(ids, types, strict=True)):
        ids_bs[number, : len(row)], mask_bs[number, : len(row)], types_bs[number, : len(row)] = row, 1, row_types
    return Tokens(
        input_ids_bs=ids_bs, attention_mask_bs=mask_bs, token_type_ids_bs=types_bs, truncated=(False,) * len(ids)
    )
