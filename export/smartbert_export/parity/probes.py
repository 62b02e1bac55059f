"""Probes: batches on which parts are compared, made of a few texts; short ones to ship, all lengths to verify with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_runtime.tokenizer import Tokens

# Of the 5 MB that a package's golden samples may take; probes carry every hidden state.
PROBE_BYTES = 3_000_000


def small_probes(model: SmartBertForSequenceClassification, tokens: Tokens) -> list[Tokens]:
    """Probes to ship: the shortest text unpadded, and three texts of different lengths in one padded batch.

    Texts too long for PROBE_BYTES are cut.
    """
    room = max(2, PROBE_BYTES // (4 * (model.config.layers + 1) * model.config.hidden_size) // 4)
    lengths = tokens.attention_mask_bs.sum(axis=1)
    order = [int(row) for row in np.argsort(lengths, kind="stable")]
    longest = max((row for row in order if lengths[row] <= room), key=lambda row: lengths[row], default=order[0])
    fitting = order[: order.index(longest) + 1]
    batch = [fitting[0], fitting[len(fitting) // 2], fitting[-1]]
    return [_shortened(tokens.rows(fitting[:1]), room), _shortened(tokens.rows(batch), room)]


def _shortened(tokens: Tokens, length: int) -> Tokens:
    return Tokens(
        input_ids_bs=tokens.input_ids_bs[:, :length],
        attention_mask_bs=tokens.attention_mask_bs[:, :length],
        token_type_ids_bs=tokens.token_type_ids_bs[:, :length],
        truncated=tokens.truncated,
    )


def wide_probes(tokens: Tokens, max_length: int) -> list[Tokens]:
    """Probes to verify with, not to ship: lengths from 1 to the model's longest, one by one and padded together.

    Made of the texts' own tokens, one text after another until the longest is filled.
    """
    lengths = sorted({min(length, max_length) for length in (1, 2, 3, max_length // 3 or 1, max_length)})
    return [
        *(cut_stream(tokens, [length]) for length in lengths),
        cut_stream(tokens, lengths),
        cut_stream(tokens, [max_length, 1]),
    ]


def cut_stream(tokens: Tokens, lengths: Sequence[int]) -> Tokens:
    """One batch with rows of these lengths, each the beginning of the texts' own tokens one after another."""
    stream_s = np.concatenate(
        [ids[mask == 1] for ids, mask in zip(tokens.input_ids_bs, tokens.attention_mask_bs, strict=True)]
    )
    stream_s = np.tile(stream_s, -(-max(lengths) // len(stream_s)))
    mask_bs = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    ids_bs = np.where(mask_bs == 1, stream_s[: max(lengths)], 0)
    return Tokens(
        input_ids_bs=ids_bs,
        attention_mask_bs=mask_bs,
        token_type_ids_bs=np.zeros_like(ids_bs),
        truncated=(False,) * len(lengths),
    )
