"""The arguments of smartbert-train for the tiny run of conftest.py, with its texts in files as a user's are."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from smartbert.training.settings import TrainingSettings
from tests.smartbert.conftest import DEV_TEXTS, TRAIN_TEXTS


def arguments(encoder: Path, folder: Path, settings: TrainingSettings) -> list[str]:
    """The arguments; the texts are written to `folder`, the output is FOLDER/ckpt."""
    words = ["--model", str(encoder), "--output", str(folder / "ckpt")]
    for name, texts in (("train", TRAIN_TEXTS), ("dev", DEV_TEXTS)):
        lines = ["text\tlabel", *(f"{text}\t{'loud' if '!' in text else 'calm'}" for text in texts)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        words += [f"--{name}-file", str(folder / f"{name}.tsv")]
    # Every setting is given, so that a change of defaults changes no test.
    for item in fields(settings):
        value, option = getattr(settings, item.name), item.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    return words
