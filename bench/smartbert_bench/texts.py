"""The labeled texts of a run: how many are used, and whether the package knows their labels."""

from __future__ import annotations

from dataclasses import replace

from smartbert_runtime.errors import InputError
from smartbert_runtime.package.manifest import Manifest
from smartbert_runtime.text_files.columns import check_pairs
from smartbert_runtime.text_files.examples import Examples
from smartbert_runtime.text_files.values import label_numbers


def first_texts(examples: Examples, count: int | None) -> Examples:
    """The first `count` examples; all of them for None."""
    return replace(
        examples,
        texts=examples.texts[:count],
        pairs=examples.pairs and examples.pairs[:count],
        labels=examples.labels and examples.labels[:count],
        lines=examples.lines[:count],
    )


def check_labels(manifest: Manifest, examples: Examples) -> None:
    """InputError for texts without labels, for pairs of texts to a model of single ones, and for unknown labels."""
    check_pairs(manifest.model.text_pairs, examples.pairs is not None, examples.source)
    known = label_numbers(manifest.labels)
    if examples.labels is None:
        raise InputError(f"{examples.source} was read without its labels", hint="name the label column")
    for label, line in zip(examples.labels, examples.lines, strict=True):
        if label not in known:
            raise InputError(
                f"{examples.source}, {examples.unit} {line}: the model has no label {label!r}",
                hint="its labels: " + ", ".join(manifest.labels),
            )
