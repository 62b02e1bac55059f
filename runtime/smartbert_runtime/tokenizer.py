"""Texts to token ids with the package's own tokenizer.json, and into padded batches of similar length.

Shape letters: b batch, s sequence.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as FastTokenizer

from smartbert_runtime.errors import InputError, ManifestError
from smartbert_runtime.package.decode import decode
from smartbert_runtime.package.open import Package

# Texts passed to the library at once: its encodings take a hundred times the memory of the ids.
CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings:
    """What tokenizer.json lacks: the longest input in tokens, the padding id, whether segments are numbered.

    truncation_side: the end at which a longer text is cut, "right" or "left".
    split_special_tokens: special tokens that a text spells out are read as words.
    """

    max_length: int
    pad_id: int
    type_ids: bool
    truncation_side: str = "right"
    split_special_tokens: bool = False


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A batch padded on the right to its longest row, all int64."""

    input_ids_bs: NDArray[np.int64]
    attention_mask_bs: NDArray[np.int64]
    token_type_ids_bs: NDArray[np.int64]
    truncated: tuple[bool, ...]

    def feeds(self) -> dict[str, NDArray[np.int64]]:
        """The inputs of the part `embeddings`, by name."""
        return {
            "input_ids": self.input_ids_bs,
            "attention_mask": self.attention_mask_bs,
            "token_type_ids": self.token_type_ids_bs,
        }

    def rows(self, picked: Sequence[int]) -> Tokens:
        """These rows, without padding that none of them needs."""
        chosen = list(picked)
        longest = int(self.attention_mask_bs[chosen].sum(axis=1).max())
        return Tokens(
            input_ids_bs=self.input_ids_bs[chosen, :longest],
            attention_mask_bs=self.attention_mask_bs[chosen, :longest],
            token_type_ids_bs=self.token_type_ids_bs[chosen, :longest],
            truncated=tuple(self.truncated[row] for row in chosen),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenizedText:
    """One text's ids, without padding. `type_ids_s` is None where the model has no segments."""

    ids_s: NDArray[np.int64]
    type_ids_s: NDArray[np.int64] | None
    truncated: bool


class Tokenizer:
    """The package's tokenizer; returns the same ids as the checkpoint's tokenizer in training."""

    def __init__(self, content: bytes, settings: TokenizerSettings) -> None:
        self.settings = settings
        try:
            self._tokenizer = FastTokenizer.from_buffer(content)
        except Exception as err:  # the library raises bare Exception for a file it cannot read
            raise ManifestError(f"tokenizer.json cannot be read: {err}", hint="export again") from err
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(settings.max_length, direction=settings.truncation_side)
        self._tokenizer.encode_special_tokens = settings.split_special_tokens

    @classmethod
    def from_package(cls, package: Package) -> Tokenizer:
        """The tokenizer of a package, the hashes of its files checked."""
        files = package.manifest.tokenizer
        settings = decode(TokenizerSettings, json.loads(package.read(files.settings)), where="tokenizer settings")
        return cls(package.read(files.tokenizer), settings)

    def encode(self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, truncate: bool = True) -> Tokens:
        """Token ids of `texts`, each with its second text from `pairs` if given.

        A longer text is cut to the model's length, or refused with InputError when `truncate` is false.
        """
        return self.pad(self.tokenize(texts, pairs, truncate=truncate))

    def tokenize(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, truncate: bool = True
    ) -> list[TokenizedText]:
        """The ids of each text, without padding, to make batches of texts of similar length."""
        rows = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        tokenized: list[TokenizedText] = []
        for start in range(0, len(rows), CHUNK):
            tokenized += self._tokenize(rows[start : start + CHUNK], truncate)
        return tokenized

    def _tokenize(self, rows: Sequence[str] | Sequence[tuple[str, str]], truncate: bool) -> list[TokenizedText]:
        # The fast one leaves out the offsets, which nothing needs; but where tokenizer.json has no post-processor, it
        # numbers the segments of a pair wrongly.
        exact = self.settings.type_ids and not isinstance(rows[0], str)
        encode = self._tokenizer.encode_batch if exact else self._tokenizer.encode_batch_fast
        try:
            encodings = encode(rows)
        except TypeError as err:  # the library's error for half a surrogate pair, which JSON can express
            raise InputError("a text holds characters that are not Unicode text", hint="repair its encoding") from err
        tokenized = [
            TokenizedText(
                ids_s=np.array(encoding.ids, dtype=np.int64),
                type_ids_s=np.array(encoding.type_ids, dtype=np.int64) if self.settings.type_ids else None,
                truncated=bool(encoding.overflowing),
            )
            for encoding in encodings
        ]
        if not truncate and any(text.truncated for text in tokenized):
            row = next(row for row, text in zip(rows, tokenized, strict=True) if text.truncated)
            shown = row if isinstance(row, str) else row[0]
            raise InputError(
                f"a text is longer than the model's {self.settings.max_length} tokens: {shown[:60]!r}...",
                hint="shorten it, or leave out --no-truncate to have it cut",
            )
        return tokenized

    def pad(self, texts: Sequence[TokenizedText]) -> Tokens:
        """One batch of these texts, padded to the longest."""
        shape = len(texts), max(len(text.ids_s) for text in texts)
        ids_bs = np.full(shape, self.settings.pad_id, dtype=np.int64)
        mask_bs, types_bs = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, text in enumerate(texts):
            length = len(text.ids_s)
            ids_bs[row, :length] = text.ids_s
            mask_bs[row, :length] = 1
            if text.type_ids_s is not None:
                types_bs[row, :length] = text.type_ids_s
        return Tokens(
            input_ids_bs=ids_bs,
            attention_mask_bs=mask_bs,
            token_type_ids_bs=types_bs,
            truncated=tuple(text.truncated for text in texts),
        )


def batches_by_length(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Rows of each batch, rows of similar length together, to need little padding."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for start in range(0, len(order), size):
        yield order[start : start + size]
