"""End to end: the runtime decides as PyTorch does, for every length, one text and batches, texts and text pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_runtime import Policy, SmartBert, Trace
from smartbert_runtime.engine.batch import run_batch
from smartbert_runtime.tokenizer import Tokens
from tests.conftest import LABELS, SENTENCES, make_tokenizer
from tests.parity.paper_oracle import PaperAnswer, paper_answer, random_rows

POLICY = Policy(exit_threshold=0.5)
# Three texts of every length from 1 to the model's longest.
LENGTHS = [length for length in range(1, 25) for _ in range(3)]


def assert_same(found: Sequence[Trace], expected: Sequence[PaperAnswer]) -> None:
    """Decisions exactly, logits within 1e-4; decisions closer than 1e-4 may differ, and are very few."""
    clear = [row for row, answer in enumerate(expected) if answer.margin > 1e-4]
    assert len(found) == len(expected) and len(clear) >= 0.95 * len(expected)
    for row in clear:
        wanted, got = expected[row], found[row]
        assert got.decisions() == (wanted.layers_run, wanted.layers_skipped, wanted.exit_layer), f"row {row}"
        np.testing.assert_allclose(got.logits_c, wanted.logits_c, atol=1e-4)


def run(classifier: SmartBert, tokens: Tokens) -> list[Trace]:
    return [o.trace for o in run_batch(classifier.sessions, tokens, POLICY, layers=4, classes=3)]


@pytest.fixture(scope="module")
def rows(model: SmartBertForSequenceClassification) -> Tokens:
    return random_rows(LENGTHS, model.config.backbone_config["vocab_size"], seed=3)


@pytest.fixture(scope="module")
def expected(model: SmartBertForSequenceClassification, rows: Tokens) -> list[PaperAnswer]:
    return [
        paper_answer(model, ids[:length].tolist(), types[:length].tolist())
        for ids, types, length in zip(rows.input_ids_bs, rows.token_type_ids_bs, LENGTHS, strict=True)
    ]


def test_random_texts_take_many_paths(expected: list[PaperAnswer]) -> None:
    paths = {(answer.layers_run, answer.layers_skipped, answer.exit_layer) for answer in expected}
    assert len(paths) >= 8
    assert {answer.exit_layer for answer in expected} >= {2, 3, 4}


def test_every_length_one_by_one(classifier: SmartBert, rows: Tokens, expected: list[PaperAnswer]) -> None:
    assert_same([run(classifier, rows.rows([row]))[0] for row in range(len(LENGTHS))], expected)


def test_all_lengths_in_one_batch(classifier: SmartBert, rows: Tokens, expected: list[PaperAnswer]) -> None:
    assert_same(run(classifier, rows), expected)


@pytest.mark.parametrize("width", [4, 9, 24])
def test_extra_padding(classifier: SmartBert, model: SmartBertForSequenceClassification, width: int) -> None:
    lengths = [1, 2, 3, 4, 4, 3, 2, 1]
    tokens = random_rows(lengths, model.config.backbone_config["vocab_size"], width=width, seed=width)
    wanted = [
        paper_answer(model, ids[:length].tolist(), types[:length].tolist())
        for ids, types, length in zip(tokens.input_ids_bs, tokens.token_type_ids_bs, lengths, strict=True)
    ]
    assert_same(run(classifier, tokens), wanted)


@pytest.mark.parametrize("picked", [[0, 71], [71, 0], [10, 10], [30, 31, 32, 33, 34], [68, 2, 40, 7]])
def test_neighbors_do_not_matter(
    classifier: SmartBert, rows: Tokens, expected: list[PaperAnswer], picked: list[int]
) -> None:
    assert_same(run(classifier, rows.rows(picked)), [expected[row] for row in picked])


def run_pytorch(
    model: SmartBertForSequenceClassification, texts: Sequence[str], pairs: Sequence[str] | None
) -> list[PaperAnswer]:
    """With the checkpoint's own tokenizer in transformers."""
    tokenizer = make_tokenizer()
    encoded = tokenizer(list(texts), list(pairs) if pairs is not None else None, truncation=True, max_length=24)
    return [
        paper_answer(model, ids, types)
        for ids, types in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True)
    ]


@pytest.mark.parametrize("batch_size", [1, 5, 32])
def test_sentences_to_labels(classifier: SmartBert, model: SmartBertForSequenceClassification, batch_size: int) -> None:
    expected = run_pytorch(model, SENTENCES, None)
    predictions = classifier.classify(SENTENCES, batch_size=batch_size)
    assert_same([prediction.trace for prediction in predictions], expected)
    for prediction, answer in zip(predictions, expected, strict=True):
        probabilities = torch.softmax(torch.from_numpy(answer.logits_c).double(), dim=0).tolist()
        assert prediction.label == LABELS[int(answer.logits_c.argmax())]
        assert list(prediction.probabilities) == list(LABELS)
        assert list(prediction.probabilities.values()) == pytest.approx(probabilities, abs=1e-4)
        assert prediction.score == max(prediction.probabilities.values())


@pytest.mark.parametrize("batch_size", [1, 32])
def test_pairs_and_truncation(
    classifier: SmartBert, model: SmartBertForSequenceClassification, batch_size: int
) -> None:
    pairs = [*SENTENCES[7:], *SENTENCES[:7]]
    predictions = classifier.classify(SENTENCES, text_pairs=pairs, batch_size=batch_size)
    assert_same([prediction.trace for prediction in predictions], run_pytorch(model, SENTENCES, pairs))
    cut = [prediction.truncated for prediction in predictions]
    assert any(cut) and not all(cut)
    assert [(prediction.text, prediction.text_pair) for prediction in predictions] == list(
        zip(SENTENCES, pairs, strict=True)
    )


def test_order_of_pair_matters(classifier: SmartBert) -> None:
    (one,), (other,) = (
        classifier.classify([text], text_pairs=[pair])
        for text, pair in (("Do cats eat bats?", "Off with her head!"), ("Off with her head!", "Do cats eat bats?"))
    )
    assert not np.array_equal(one.trace.logits_c, other.trace.logits_c)


def test_hugging_face_forward(classifier: SmartBert, model: SmartBertForSequenceClassification) -> None:
    """`model(**batch).logits` follows the config's thresholds, as the package's default policy does."""
    batch = make_tokenizer()(list(SENTENCES), truncation=True, max_length=24, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits_bc = model(**batch).logits.numpy()
    found = np.stack([prediction.trace.logits_c for prediction in classifier.classify(SENTENCES)])
    np.testing.assert_allclose(found, logits_bc, atol=1e-4)
