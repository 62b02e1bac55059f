"""The texts on which quantized parts are judged: from a file, from the checkpoint, or made of the golden texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from smartbert.checkpoint_folder import CHECK_TEXTS_FILE
from smartbert_export.quantize.check_texts import CheckTexts, choose_check_texts, recombine
from smartbert_runtime import InputError, SmartBert
from tests.conftest import LABELS, SENTENCES
from tests.export.reporters import Recorder


def choose(classifier: SmartBert, folder: Path, file: Path | None) -> tuple[CheckTexts, list[str]]:
    reporter = Recorder()
    texts = choose_check_texts(folder, file, SENTENCES, None, LABELS, classifier.tokenizer, reporter=reporter)
    return texts, reporter.notes


def test_few_texts_of_a_file(classifier: SmartBert, tmp_path: Path) -> None:
    file = tmp_path / "check.tsv"
    file.write_text("text\nWho am I?\nOff we go.\n", encoding="utf-8")
    texts, notes = choose(classifier, tmp_path, file)
    expected = classifier.tokenizer.encode(["Who am I?", "Off we go."])
    assert texts.tokens.input_ids_bs.tolist() == expected.input_ids_bs.tolist() and texts.label_ids_r is None
    assert notes[0] == "only 2 texts decide which parts are quantized; give 500 or more"
    assert "check.tsv has no labels" in notes[1]


def test_labels_of_a_file(classifier: SmartBert, tmp_path: Path) -> None:
    file = tmp_path / "check.tsv"
    file.write_text("text\tlabel\nWho am I?\todd\nOff we go.\tcalm\n", encoding="utf-8")
    texts, notes = choose(classifier, tmp_path, file)
    assert texts.label_ids_r is not None and texts.label_ids_r.tolist() == [2, 0] and len(notes) == 1


def test_label_that_the_model_lacks(classifier: SmartBert, tmp_path: Path) -> None:
    file = tmp_path / "check.csv"
    file.write_text("text,label\nWho am I?,odd\nOff we go.,angry\n", encoding="utf-8")
    with pytest.raises(InputError, match="line 3: the label 'angry' does not occur in training") as error:
        choose(classifier, tmp_path, file)
    assert error.value.hint == "labels in training: calm, loud, odd"


def test_texts_that_training_kept(classifier: SmartBert, tmp_path: Path) -> None:
    (tmp_path / CHECK_TEXTS_FILE).write_text('{"text": "Who am I?", "label": "loud"}\n', encoding="utf-8")
    texts, notes = choose(classifier, tmp_path, None)
    assert len(texts) == 1 and texts.label_ids_r is not None and texts.label_ids_r.tolist() == [1]
    assert notes == ["only 1 texts decide which parts are quantized; give 500 or more"]


def test_kept_texts_without_labels_are_named(classifier: SmartBert, tmp_path: Path) -> None:
    (tmp_path / CHECK_TEXTS_FILE).write_text('{"text": "Who am I?"}\n', encoding="utf-8")
    _, notes = choose(classifier, tmp_path, None)
    assert f"{CHECK_TEXTS_FILE} has no labels" in notes[1]


def test_texts_made_of_golden_ones(classifier: SmartBert, tmp_path: Path) -> None:
    texts, (note,) = choose(classifier, tmp_path, None)
    made, _ = recombine(SENTENCES, None, 500)
    assert texts.tokens.input_ids_bs.tolist() == classifier.tokenizer.encode(made).input_ids_bs.tolist()
    assert texts.label_ids_r is None
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
