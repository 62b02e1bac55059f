"""Labeled texts for training: from files or a data set's name to a training, a validation and a dev split."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from smartbert_runtime.errors import ConfigError, InputError
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import Examples, examples_from_rows, read_examples

# Names that data sets on the hub have for their validation split; the first that exists is the dev split.
DEV_SPLITS = ("validation", "dev", "validation_matched", "test")


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where the texts come from: two local files, or a data set by name (hub or local folder) through `datasets`."""

    train_file: Path | None = None
    dev_file: Path | None = None
    dataset: str | None = None
    task: str | None = None
    dev_split: str | None = None
    columns: Columns = field(default_factory=Columns)
    max_train_samples: int | None = None

    def __post_init__(self) -> None:
        files = self.train_file is not None or self.dev_file is not None
        if files == (self.dataset is not None):
            raise ConfigError(
                "name the data once: --train-file with --dev-file, or --dataset",
                hint="see smartbert-train --help",
            )
        if files and (self.train_file is None or self.dev_file is None):
            raise ConfigError("--train-file and --dev-file go together", hint="give both")
        if self.max_train_samples is not None and self.max_train_samples < 2:
            raise ConfigError("max_train_samples must be 2 or more", hint="change --max-train-samples")


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
    """`train` is learned from, `validation` (cut from the training texts) chooses, `dev` only reports."""

    labels: tuple[str, ...]
    train: Split
    validation: Split
    dev: Split


def load_task(source: DataSource, *, validation_fraction: float, seed: int) -> TaskData:
    """Read, check and split; InputError for what cannot be trained on."""
    train, dev, labels = _read_files(source) if source.dataset is None else _read_dataset(source)
    labels = labels or tuple(sorted(set(train.labels or ())))
    if len(set(train.labels or ())) < 2:
        raise InputError(
            f"{train.source}: all texts have one label, {labels[0]!r}",
            hint="a classifier needs at least two classes",
        )
    whole, dev_split = number_labels(train, labels), number_labels(dev, labels)
    missing = sorted(set(train.labels or ()) - set(dev.labels or ()))
    if missing:
        raise InputError(
            f"{dev.source}: no text has the label {missing[0]!r}, which occurs in training",
            hint="give dev texts of every class: what is not measured cannot be relied on",
        )
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
    return TaskData(labels=labels, train=whole.pick(rest), validation=whole.pick(sorted(kept_back)), dev=dev_split)


def _validation_rows(split: Split, fraction: float, seed: int) -> set[int]:
    """Rows chosen by a hash of their text, so that a text that occurs twice is never on both sides."""
    keys = [
        hashlib.sha1(f"{seed}\n{text}\n{split.pairs[row] if split.pairs else ''}".encode()).digest()
        for row, text in enumerate(split.texts)
    ]
    unique = sorted(set(keys))
    chosen = set(unique[: round(len(unique) * fraction)])
    return {row for row, key in enumerate(keys) if key in chosen}


def number_labels(examples: Examples, labels: Sequence[str]) -> Split:
    """Labels as their places in `labels`; InputError names the line of one that is not there."""
    index = {label: number for number, label in enumerate(labels)}
    for label, line in zip(examples.labels or (), examples.lines, strict=True):
        if label not in index:
            raise InputError(
                f"{examples.source}, line {line}: the label {label!r} does not occur in training",
                hint="labels in training: " + ", ".join(labels),
            )
    return Split(
        texts=examples.texts,
        pairs=examples.pairs,
        label_ids=tuple(index[label] for label in examples.labels or ()),
    )


def _read_files(source: DataSource) -> tuple[Examples, Examples, tuple[str, ...]]:
    assert source.train_file is not None and source.dev_file is not None  # DataSource has checked
    (train, labels), (dev, _) = (_read_file(file, source.columns) for file in (source.train_file, source.dev_file))
    if (train.pairs is None) != (dev.pairs is None):
        raise InputError(
            "one file has text pairs and the other single texts",
            hint="use the same columns in both, or --text-column",
        )
    return train, dev, labels


def _read_file(file: Path, columns: Columns) -> tuple[Examples, tuple[str, ...]]:
    """The file's texts, and its label names where it declares them."""
    if file.suffix.lower() != ".parquet":
        return read_examples(file, columns, labeled=True), ()
    from datasets import Dataset

    try:
        table = Dataset.from_parquet(str(file))
    except Exception as err:  # the library wraps a damaged page in an error of its own
        raise InputError(f"{file} cannot be read: {str(err).splitlines()[0]}", hint="check the file") from err
    return _examples(table, str(file), columns)


def _read_dataset(source: DataSource) -> tuple[Examples, Examples, tuple[str, ...]]:
    from datasets import load_dataset

    name = f"{source.dataset}{'/' + source.task if source.task else ''}"
    try:
        splits = load_dataset(source.dataset, source.task)
    except Exception as err:  # the library and the network raise many kinds
        raise InputError(
            f"the data set {name} cannot be loaded: {str(err).strip().splitlines()[0]}",
            hint="check the name and the network, or give --train-file and --dev-file",
        ) from err
    if "train" not in splits:
        raise InputError(f"{name} has no split 'train'", hint=f"its splits: {', '.join(splits)}")
    wanted = (source.dev_split,) if source.dev_split else DEV_SPLITS
    dev_name = next((split for split in wanted if split in splits), None)
    if dev_name is None:
        raise InputError(
            f"{name} has no split {' or '.join(wanted)}",
            hint=f"its splits: {', '.join(splits)}; use --dev-split",
        )
    train, labels = _examples(splits["train"], f"{name}, split train", source.columns)
    dev, _ = _examples(splits[dev_name], f"{name}, split {dev_name}", source.columns)
    return train, dev, labels


def _examples(table: object, source: str, columns: Columns) -> tuple[Examples, tuple[str, ...]]:
    """A `datasets` table as Examples, and its label names where the table declares them."""
    rows = [{key: str(value) for key, value in row.items() if value is not None} for row in table]  # type: ignore[attr-defined]
    if not rows:
        raise InputError(f"{source} holds no rows", hint="check the data")
    examples = examples_from_rows(rows, range(1, len(rows) + 1), source=source, columns=columns, labeled=True)
    names = getattr(table.features[columns.label], "names", None)  # type: ignore[attr-defined]
    if names is None:
        return examples, ()
    if "-1" in (examples.labels or ()):
        raise InputError(f"{source} holds unlabeled texts (label -1)", hint="choose another split with --dev-split")
    return replace(examples, labels=tuple(names[int(label)] for label in examples.labels or ())), tuple(names)
