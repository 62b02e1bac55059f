"""The torch model as the engine's parts, with a record of every call; texts as tokens without a package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_runtime.tokenizer import Tokenizer, TokenizerSettings, Tokens
from tests.conftest import make_tokenizer

MAX_LENGTH = 24


@dataclass(frozen=True)
class Call:
    """One run of a part: its name, the rows and the tokens a row that it was given."""

    part: str
    rows: int
    tokens: int


class TorchParts:
    """`engine.Parts` over the torch model itself."""

    def __init__(self, model: SmartBertForSequenceClassification) -> None:
        self.model = model
        self.calls: list[Call] = []

    @torch.inference_mode()
    def run(self, part: str, feeds: Mapping[str, NDArray[np.generic]]) -> list[NDArray[np.float32]]:
        """The part's outputs; the feeds are copied, so that nothing can be shared with them."""
        tensors = {name: torch.from_numpy(array.copy()) for name, array in feeds.items()}
        first = next(iter(tensors.values()))
        self.calls.append(Call(part, first.shape[0], first.shape[1]))
        return [np.array(output.numpy()) for output in self._run(part, tensors)]

    def _run(self, part: str, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        if part == "embeddings":
            return self.model.embed(**tensors)
        role, number = part.split("_")
        index, hidden, mask = int(number) - 1, tensors["hidden"], tensors["mask"]
        if role == "layer":
            return (self.model.run_layer(index, hidden, mask),)
        if role == "block":
            return self._run_block(index, hidden, mask)
        heads = self.model.gates if role == "gate" else self.model.exits
        return (cast(torch.Tensor, heads[index](hidden, mask)),)

    def _run_block(self, index: int, hidden: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """A layer, its exit head and the next gate, one after the other: what a fused graph must equal."""
        hidden = self.model.run_layer(index, hidden, mask)
        readers = [self.model.exits[index], *self.model.gates[index + 1 : index + 2]]
        return hidden, *(cast(torch.Tensor, reader(hidden, mask)) for reader in readers)

    def rows(self, part: str) -> list[int]:
        """How many rows each call of this part was given."""
        return [call.rows for call in self.calls if call.part == part]


def encode(texts: Sequence[str]) -> Tokens:
    """The texts' tokens, cut at the tiny model's length, padded to the longest."""
    content = make_tokenizer().backend_tokenizer.to_str().encode()
    return Tokenizer(content, TokenizerSettings(max_length=MAX_LENGTH, pad_id=0, type_ids=True)).encode(texts)


def padded(tokens: Tokens, columns: int, fill: int = 0) -> Tokens:
    """The same rows with this many more columns of padding, all of it with the token id `fill`."""

    def widened(array_bs: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.pad(array_bs, ((0, 0), (0, columns)))

    mask_bs = widened(tokens.attention_mask_bs)
    return Tokens(
        input_ids_bs=np.where(mask_bs == 1, widened(tokens.input_ids_bs), fill),
        attention_mask_bs=mask_bs,
        token_type_ids_bs=widened(tokens.token_type_ids_bs),
        truncated=tokens.truncated,
    )
