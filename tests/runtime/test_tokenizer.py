"""tokenizer: the same ids as the checkpoint's tokenizer, padding, truncation, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer as FastTokenizer

from smartbert_runtime import SmartBert
from smartbert_runtime.errors import InputError, ManifestError
from smartbert_runtime.package.open import open_package
from smartbert_runtime.tokenizer import CHUNK, Tokenizer, TokenizerSettings, batches_by_length
from tests.conftest import SENTENCES, make_tokenizer

ODD_TEXTS = ("Ærøskøbing naïve", "a [SEP] b [MASK]", "tab\tand  two  spaces", "🐇 rabbit 日本", "don't!!! stop--it")
FILE = make_tokenizer().backend_tokenizer.to_str().encode()
SETTINGS = TokenizerSettings(max_length=8, pad_id=0, type_ids=True)


def expected(texts: tuple[str, ...], pairs: tuple[str, ...] | None, limit: int) -> dict[str, NDArray[np.int64]]:
    """What transformers makes of them."""
    encoding = make_tokenizer()(
        list(texts),
        list(pairs) if pairs is not None else None,
        truncation=True,
        max_length=limit,
        padding=True,
        return_tensors="np",
    )
    return {name: np.asarray(array) for name, array in encoding.items()}


@pytest.mark.parametrize("pairs", [None, SENTENCES[::-1] + ODD_TEXTS[::-1]])
def test_ids_match_transformers(classifier: SmartBert, pairs: tuple[str, ...] | None) -> None:
    texts = SENTENCES + ODD_TEXTS
    tokens = classifier.tokenizer.encode(texts, pairs)
    wanted = expected(texts, pairs, classifier.tokenizer.settings.max_length)
    assert tokens.feeds().keys() == wanted.keys()
    for name, array in tokens.feeds().items():
        assert array.dtype == np.int64
        assert np.array_equal(array, wanted[name]), name
    assert bool(tokens.token_type_ids_bs.any()) == (pairs is not None)


def test_texts_are_truncated(classifier: SmartBert) -> None:
    assert classifier.tokenizer.settings.max_length == 24
    assert classifier.package.manifest.model.max_length == 24
    assert classifier.tokenizer.encode(SENTENCES).input_ids_bs.shape == (len(SENTENCES), 24)


def test_truncated_flags() -> None:
    # [CLS] and [SEP] leave six of eight.
    tokens = Tokenizer(FILE, SETTINGS).encode(["a b c d e", "a b c d e f", "a b c d e f g"])
    assert tokens.truncated == (False, False, True)
    assert tokens.attention_mask_bs.sum(axis=1).tolist() == [7, 8, 8]


def test_longer_text_of_pair_is_cut() -> None:
    tokenizer = Tokenizer(FILE, SETTINGS)
    tokens = tokenizer.encode(["a b", "a b c d e f"], ["c d e", "x"])
    assert tokens.truncated == (False, True)
    assert tokens.token_type_ids_bs.tolist() == [[0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1]]


def test_no_truncate_names_limit() -> None:
    tokenizer = Tokenizer(FILE, SETTINGS)
    with pytest.raises(InputError, match=r"longer than the model's 8 tokens: 'g f e d c b a'") as caught:
        tokenizer.encode(["a b c", "g f e d c b a"], truncate=False)
    assert "--no-truncate" in caught.value.hint
    assert tokenizer.encode(["a b c d e f"], truncate=False).truncated == (False,)


def test_no_truncate_refuses_long_pair() -> None:
    with pytest.raises(InputError, match="longer than the model's 8 tokens"):
        Tokenizer(FILE, SETTINGS).encode(["a b c"], ["d e f"], truncate=False)


def test_padding_on_the_right() -> None:
    tokens = Tokenizer(FILE, replace(SETTINGS, pad_id=4)).encode(["a", "a b c"])
    a, b, c = (make_tokenizer().convert_tokens_to_ids(letter) for letter in "abc")
    assert tokens.input_ids_bs.tolist() == [[2, a, 3, 4, 4], [2, a, b, c, 3]]
    assert tokens.attention_mask_bs.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


def test_batches_by_length() -> None:
    assert list(batches_by_length([5, 1, 4, 1, 3], 2)) == [[1, 3], [4, 2], [0]]
    assert list(batches_by_length([], 2)) == []


def test_more_texts_than_a_chunk() -> None:
    tokenizer = Tokenizer(FILE, SETTINGS)
    texts = ["a", "a b"] * (CHUNK // 2) + ["a b c d e f g"]
    found = tokenizer.tokenize(texts, pairs=None)
    assert [len(text.ids_s) for text in found] == [3, 4] * (CHUNK // 2) + [8]
    assert [text.truncated for text in found] == [False] * CHUNK + [True]
    pairs = tokenizer.tokenize(texts, texts)
    assert len(pairs) == len(texts) and pairs[-1].type_ids_s is not None
    assert pairs[-1].type_ids_s.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_segments_stay_zero() -> None:
    tokens = Tokenizer(FILE, replace(SETTINGS, type_ids=False)).encode(["a"], ["b"])
    assert tokens.token_type_ids_bs.tolist() == [[0, 0, 0, 0, 0]]


def test_rows_drop_padding() -> None:
    tokens = Tokenizer(FILE, SETTINGS).encode(["a b c d e f g", "a", "b c"]).rows([2, 1])
    b, c, a = (make_tokenizer().convert_tokens_to_ids(letter) for letter in "bca")
    assert tokens.input_ids_bs.tolist() == [[2, b, c, 3], [2, a, 3, 0]]
    assert tokens.attention_mask_bs.tolist() == [[1, 1, 1, 1], [1, 1, 1, 0]]
    assert tokens.token_type_ids_bs.shape == (2, 4)
    assert tokens.truncated == (False, False)


def test_settings_override_tokenizer_json() -> None:
    own = FastTokenizer.from_buffer(FILE)
    own.enable_truncation(3)
    own.enable_padding(length=20)
    tokens = Tokenizer(own.to_str().encode(), SETTINGS).encode(["a b c d"])
    assert tokens.input_ids_bs.shape == (1, 6)
    assert tokens.truncated == (False,)


def test_damaged_tokenizer_file() -> None:
    with pytest.raises(ManifestError, match=r"tokenizer\.json cannot be read"):
        Tokenizer(b'{"version": "1.0"}', SETTINGS)


def test_settings_of_package(classifier: SmartBert) -> None:
    package = open_package(classifier.package.root)
    settings = json.loads(package.read(package.manifest.tokenizer.settings))
    assert (settings["pad_id"], settings["type_ids"]) == (make_tokenizer().pad_token_id, True)
