"""Where labeled texts come from: two local files, or a data set by name through `datasets`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from smartbert_runtime.errors import ConfigError, InputError
from smartbert_runtime.text_files.columns import Columns
from smartbert_runtime.text_files.examples import Examples, examples_from_rows, read_examples
from smartbert_runtime.text_files.values import as_text

# Names of validation splits on the hub; the first one present is the dev split.
DEV_SPLITS = ("validation", "dev", "validation_matched", "test")


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Two local files, or a data set by name (hub or local folder), with the columns to read."""

    train_file: Path | str | None = None
    dev_file: Path | str | None = None
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
class SourceTexts:
    """What a source holds; `label_names` in their declared order, empty where the source declares none."""

    train: Examples
    dev: Examples
    label_names: tuple[str, ...]


def read_source(source: DataSource) -> SourceTexts:
    """Read the training and the dev texts; InputError for what cannot be read, or for pairs in one of them only."""
    texts = _read_files(source) if source.dataset is None else _read_dataset(source)
    if (texts.train.pairs is None) != (texts.dev.pairs is None):
        raise InputError(
            "one file has text pairs and the other single texts",
            hint="use the same columns in both, or --text-column",
        )
    return texts


def _read_files(source: DataSource) -> SourceTexts:
    assert source.train_file is not None and source.dev_file is not None  # DataSource has checked
    train, dev = (read_examples(file, source.columns, labeled=True) for file in (source.train_file, source.dev_file))
    return SourceTexts(train=train, dev=dev, label_names=train.label_names)


def _read_dataset(source: DataSource) -> SourceTexts:
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
    train, names = _table_examples(splits["train"], f"{name}, split train", source.columns)
    dev, _ = _table_examples(splits[dev_name], f"{name}, split {dev_name}", source.columns)
    return SourceTexts(train=train, dev=dev, label_names=names)


def _table_examples(table: object, source: str, columns: Columns) -> tuple[Examples, tuple[str, ...]]:
    """A `datasets` table as Examples, and its label names where the table declares them."""
    rows = [
        {key: text for key, value in row.items() if (text := as_text(value)) is not None}
        for row in table  # type: ignore[attr-defined]
    ]
    if not rows:
        raise InputError(f"{source} holds no rows", hint="check the data")
    numbers = range(1, len(rows) + 1)
    examples = examples_from_rows(rows, numbers, source=source, columns=columns, labeled=True, unit="row")
    names = getattr(table.features[columns.label], "names", None)  # type: ignore[attr-defined]
    if names is None:
        return examples, ()
    if "-1" in (examples.labels or ()):
        raise InputError(f"{source} holds unlabeled texts (label -1)", hint="choose another split with --dev-split")
    return replace(examples, labels=tuple(names[int(label)] for label in examples.labels or ())), tuple(names)
