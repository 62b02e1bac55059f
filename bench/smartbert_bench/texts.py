"""The labeled texts of a run: how many are used, and whether the package knows their labels."""

from __future__ import annotations

from dataclasses import replace

from smartbert_runtime.errors import InputError
from smartbert_runtime.package.manifest import Manifest
from smartbert_runtime.text_files.examples import Examples


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
    """InputError for texts without labels, or for a label that the model does not know, with its line."""
    if examples.labels is None:
        raise InputError(f"{examples.source} was read without its labels", hint="name the label column")
    for label, line in zip(examples.labels, examples.lines, strict=True):
        if label not in manifest.labels:
            raise InputError(
                f"{examples.source}, line {line}: the model has no label {label!r}",
                hint="its labels: " + ", ".join(manifest.labels),
            )
