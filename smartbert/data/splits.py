"""The training, validation and dev split of a task: labels as numbers, and validation texts kept out of training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from smartbert.data.sources import DataSource, read_source
from smartbert_runtime.errors import InputError
from smartbert_runtime.text_files.examples import Examples
from smartbert_runtime.text_files.values import label_numbers, sorted_labels


@dataclass(frozen=True, kw_only=True)
class Split:
    """Texts with the index of each one's label."""

    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None
    label_ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.texts)

    def pick(self, rows: Sequence[int]) -> Split:
        """These rows, in this order."""
        return Split(
            texts=tuple(self.texts[row] for row in rows),
            pairs=tuple(self.pairs[row] for row in rows) if self.pairs else None,
            label_ids=tuple(self.label_ids[row] for row in rows),
        )


@dataclass(frozen=True, kw_only=True)
class TaskData:
    """`train` is learned from, `validation` (cut from the training texts) chooses, `dev` only reports.

    notes: what was read, and what is odd about it.
    """

    labels: tuple[str, ...]
    train: Split
    validation: Split
    dev: Split
    notes: tuple[str, ...] = ()


def load_task(source: DataSource, *, validation_fraction: float, seed: int) -> TaskData:
    """Read, check and split; InputError for what cannot be trained on."""
    texts = read_source(source)
    train, dev = texts.train, texts.dev
    labels = texts.label_names or sorted_labels(train.labels or ())
    if len(set(train.labels or ())) < 2:
        raise InputError(
            f"{train.source}: all texts have one label, {labels[0]!r}",
            hint="a classifier needs at least two classes",
        )
    whole, dev_split = number_labels(train, labels), number_labels(dev, labels)
    missing = set(train.labels or ()) - set(dev.labels or ())
    notes = [train.describe(), dev.describe()]
    if missing:
        named = ", ".join(repr(label) for label in sorted_labels(missing))
        notes.append(f"{dev.source} has no text labeled {named}: its figures say nothing about that")
    whole_ids = whole.label_ids
    if source.max_train_samples is not None:
        whole = whole.pick(range(min(source.max_train_samples, len(whole))))
    kept_back = _validation_rows(whole, validation_fraction, seed)
    rest = [row for row in range(len(whole)) if row not in kept_back]
    if not kept_back or len({whole.label_ids[row] for row in rest}) < 2:
        raise InputError(
            f"{train.source}: too few texts to keep {validation_fraction:.0%} back for choosing thresholds",
            hint="give more rows, or change --validation-fraction or --max-train-samples",
        )
    lost = sorted(set(whole_ids) - {whole.label_ids[row] for row in rest})
    if lost:
        raise InputError(
            f"{train.source}: no text with the label {labels[lost[0]]!r} is left to train on",
            hint="give more of them; --max-train-samples takes the first rows: of a sorted file, one class",
        )
    return TaskData(
        labels=labels,
        train=whole.pick(rest),
        validation=whole.pick(sorted(kept_back)),
        dev=dev_split,
        notes=tuple(notes),
    )


def number_labels(examples: Examples, labels: Sequence[str]) -> Split:
    """Each label as its index in `labels`; InputError names the line of one that is not in there."""
    index = label_numbers(labels)
    for label, line in zip(examples.labels or (), examples.lines, strict=True):
        if label not in index:
            raise InputError(
                f"{examples.source}, {examples.unit} {line}: the label {label!r} does not occur in training",
                hint="labels in training: " + ", ".join(labels),
            )
    return Split(
        texts=examples.texts,
        pairs=examples.pairs,
        label_ids=tuple(index[label] for label in examples.labels or ()),
    )


def _validation_rows(split: Split, fraction: float, seed: int) -> set[int]:
    """Rows chosen by a hash of their text, so that a repeated text is never on both sides."""
    keys = [
        hashlib.sha1(f"{seed}\n{text}\n{split.pairs[row] if split.pairs else ''}".encode()).digest()
        for row, text in enumerate(split.texts)
    ]
    unique = sorted(set(keys))
    chosen = set(unique[: round(len(unique) * fraction)])
    return {row for row, key in enumerate(keys) if key in chosen}
