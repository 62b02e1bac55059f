"""The texts on which quantized parts are compared: from a file, or made of the golden texts."""

from __future__ import annotations

from pathlib import Path

from smartbert_export.quantize.check_texts import choose_check_texts, recombine
from smartbert_runtime import SmartBert
from tests.conftest import SENTENCES
from tests.export.reporters import Recorder


def test_few_texts_of_a_file(classifier: SmartBert, tmp_path: Path) -> None:
    file = tmp_path / "check.tsv"
    file.write_text("text\nWho am I?\nOff we go.\n", encoding="utf-8")
    reporter = Recorder()
    tokens = choose_check_texts(file, SENTENCES, None, classifier.tokenizer, reporter=reporter)
    expected = classifier.tokenizer.encode(["Who am I?", "Off we go."])
    assert tokens.input_ids_bs.tolist() == expected.input_ids_bs.tolist()
    assert reporter.notes == ["only 2 texts decide which parts are quantized; give 500 or more"]


def test_texts_made_of_golden_ones(classifier: SmartBert) -> None:
    reporter = Recorder()
    tokens = choose_check_texts(None, SENTENCES, None, classifier.tokenizer, reporter=reporter)
    made, _ = recombine(SENTENCES, None, 500)
    assert tokens.input_ids_bs.tolist() == classifier.tokenizer.encode(made).input_ids_bs.tolist()
    (note,) = reporter.notes
    assert f"{len(made)} texts made of the {len(SENTENCES)} golden ones" in note and "--check-file" in note


def test_recombined_texts_are_distinct() -> None:
    texts, pairs = recombine(SENTENCES, None, 500)
    assert pairs is None
    assert texts[: len(SENTENCES)] == list(SENTENCES), "the texts themselves come first"
    assert 500 <= len(texts) < 500 + len(SENTENCES) and len(set(texts)) == len(texts)
    words = {word for text in SENTENCES for word in text.split()}
    assert {word for text in texts for word in text.split()} <= words


def test_recombined_halves() -> None:
    texts, _ = recombine(["one two three", "four five six seven", "eight"], None, 9)
    assert texts == [
        "one two three",
        "four five six seven",
        "eight",
        "one two six seven",
        "four five",
        "eight three",
        "one two",
        "four five three",
        "eight six seven",
    ]


def test_recombining_is_deterministic() -> None:
    assert recombine(SENTENCES, None, 300) == recombine(list(SENTENCES), None, 300)


def test_recombining_few_texts() -> None:
    texts, _ = recombine(["one two", "one three"], None, 500)
    assert texts == ["one two", "one three"]  # their halves put together anew are the same two
    assert recombine(["alone"], None, 500) == (["alone"], None)


def test_recombined_pairs() -> None:
    firsts, seconds = recombine(["a b", "c d"], ["e f", "g h"], 4)
    assert seconds is not None
    assert list(zip(firsts, seconds, strict=True)) == [
        ("a b", "e f"), ("c d", "g h"), ("a b", "g h"), ("c d", "e f"),
    ]  # fmt: skip
