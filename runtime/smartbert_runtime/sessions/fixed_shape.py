"""Running parts of a fixed shape (one batch size, one length): feeds are padded and split to fit, outputs cut back.

Accelerators take a graph whole only when no dimension is dynamic. Padding is masked out of everything, and the rows
that fill up a batch are dropped, so the answers are those of the dynamic parts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.errors import InputError
from smartbert_runtime.package.manifest import TensorSpec

BATCH, SEQUENCE = "batch", "sequence"
# What padding looks like in the additive mask; anything else is padded with zeros.
MASKED = -10000.0

Feeds = Mapping[str, NDArray[np.generic]]
Outputs = list[NDArray[np.float32]]


def run_fixed(
    run: Callable[[Feeds], Outputs],
    feeds: Feeds,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    shape: Sequence[int],
) -> Outputs:
    """The outputs for `feeds` of any batch and of at most the fixed length, with as many calls of `run` as it takes.

    inputs: the first is (batch, sequence, ...), or (1, sequence) for a graph that takes one text a call.
    shape: the batch and sequence length that the graph was made for. Raises InputError for longer rows.
    """
    sequence = shape[1]
    batch = shape[0] if BATCH in inputs[0].dims else 1
    rows, length = feeds[inputs[0].name].shape[:2]
    if length > sequence:
        raise InputError(
            f"a text of {length} tokens does not fit parts made for {sequence}",
            hint="shorten it, or export with a longer --fixed-shape",
        )
    calls = []
    for start in range(0, rows, batch):
        chosen = slice(start, start + batch)
        calls.append(run({spec.name: _padded(feeds[spec.name], spec, chosen, shape) for spec in inputs}))
    return [
        _cut(np.concatenate(pieces) if len(pieces) > 1 else pieces[0], spec, rows, length)
        for spec, pieces in zip(outputs, zip(*calls, strict=True), strict=True)
    ]


def _padded(array: NDArray[np.generic], spec: TensorSpec, chosen: slice, shape: Sequence[int]) -> NDArray[np.generic]:
    if not array.ndim:
        return array
    wanted = dict(zip((BATCH, SEQUENCE), shape, strict=True))
    if BATCH in spec.dims:
        array = array[chosen]
    missing = [(0, wanted.get(dim, size) - size) for dim, size in zip(spec.dims, array.shape, strict=True)]
    padded: NDArray[np.generic] = np.pad(array, missing, constant_values=MASKED if spec.name == "mask" else 0)
    return padded


def _cut(array: NDArray[np.float32], spec: TensorSpec, rows: int, length: int) -> NDArray[np.float32]:
    kept = {BATCH: slice(rows), SEQUENCE: slice(length)}
    return array[tuple(kept.get(dim, slice(None)) for dim in spec.dims)]
