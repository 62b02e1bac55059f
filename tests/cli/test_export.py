"""smartbert-export's bad inputs: named on stderr, nothing written (when all is well: see test_pipeline)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.cli.export import main
from smartbert_export.graphs.cut import CutParts, cut_parts
from tests.cli.conftest import Call
from tests.conftest import make_encoder_config, make_tokenizer
from tests.helpers import assert_named_error


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_missing_checkpoint(call: Call, tmp_path: Path) -> None:
    run = call(main, tmp_path / "nowhere", tmp_path / "out")
    assert_named_error(run, "nowhere is not a checkpoint: it has no config.json", "smartbert-train")
    assert names(tmp_path) == []


def test_plain_checkpoint_needs_golden_file(call: Call, tmp_path: Path) -> None:
    BertForSequenceClassification(make_encoder_config()).save_pretrained(tmp_path / "plain")
    make_tokenizer().save_pretrained(tmp_path / "plain")
    before = names(tmp_path)
    run = call(main, tmp_path / "plain", tmp_path / "out")
    assert_named_error(run, "plain holds no golden_texts.jsonl", "--golden-file")
    assert names(tmp_path) == before


def test_existing_folder_is_kept(call: Call, checkpoint_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert_named_error(call(main, checkpoint_dir, tmp_path / "out"), "out exists already", "--overwrite")
    assert names(tmp_path) == ["out"]


def test_existing_file_is_kept(call: Call, checkpoint_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    run = call(main, checkpoint_dir, tmp_path / "out", "--overwrite")
    assert_named_error(run, "out is a file, not a folder")
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"


def test_unwritable_output(call: Call, checkpoint_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    assert_named_error(call(main, checkpoint_dir, tmp_path / "file" / "out"), "cannot be written")


def test_checkpoint_without_golden_texts(call: Call, checkpoint_dir: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(checkpoint_dir, tmp_path / "ckpt"))
    (checkpoint / "golden_texts.jsonl").unlink()
    run = call(main, checkpoint, tmp_path / "out")
    assert_named_error(run, "ckpt holds no golden_texts.jsonl", "--golden-file FILE")
    assert [path.name for path in tmp_path.iterdir()] == ["ckpt"]


@pytest.mark.parametrize(
    ("content", "words"),
    [("fine\n\nfine\n", ["golden.txt, line 2: text is empty"]), (None, ["golden.txt cannot be read"])],
    ids=["empty-line", "missing"],
)
def test_bad_golden_file(
    call: Call, checkpoint_dir: Path, tmp_path: Path, content: str | None, words: list[str]
) -> None:
    golden = tmp_path / "golden.txt"
    if content is not None:
        golden.write_text(content, encoding="utf-8")
    before = names(tmp_path)
    assert_named_error(call(main, checkpoint_dir, tmp_path / "out", "--golden-file", golden), *words)
    assert names(tmp_path) == before


def test_parity_failure_writes_nothing(
    call: Call, checkpoint_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model is altered between recording PyTorch's answers and cutting it into parts."""

    def alter_first(model: SmartBertForSequenceClassification, *arguments: Any, **options: Any) -> CutParts:
        with torch.no_grad():
            model.get_parameter("exits.2.classify.weight").mul_(1.01)
        return cut_parts(model, *arguments, **options)

    monkeypatch.setattr("smartbert_export.package.cut_parts", alter_first)
    run = call(main, checkpoint_dir, tmp_path / "out")
    assert_named_error(run, "error: exit_03 differs from PyTorch", "hint: ", code=3)
    assert run.out == "" and names(tmp_path) == []
