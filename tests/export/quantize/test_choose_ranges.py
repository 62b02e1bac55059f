"""Where int8's ranges come from: a file of texts, the checkpoint, or nowhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smartbert.activations.ranges import RANGES_FILE
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.quantize import choose_ranges as module
from smartbert_export.quantize.choose_ranges import choose_ranges
from smartbert_export.source_checkpoint import open_checkpoint
from smartbert_runtime import SmartBert
from smartbert_runtime.errors import ExportError
from tests.conftest import SENTENCES, save_checkpoint
from tests.export.reporters import Recorder


@pytest.fixture
def texts_file(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    file.write_text("\n".join(SENTENCES[:6]) + "\n", encoding="utf-8")
    return file


def test_a_file_comes_first(checkpoint_dir: Path, classifier: SmartBert, texts_file: Path) -> None:
    source, reporter = open_checkpoint(checkpoint_dir), Recorder()
    found = choose_ranges(source, texts_file, classifier.tokenizer, source.policy(), reporter=reporter)
    assert found is not None and found.texts == 6 and source.ranges is not None and source.ranges.texts == 24
    assert reporter.notes == ["only 6 texts to choose int8 scales from; give 256 or more"]
    assert reporter.steps[-1] == "recording ranges of activations, text 6 of 6"


def test_long_files_are_sampled(
    checkpoint_dir: Path, classifier: SmartBert, texts_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TEXTS", 3)
    source = open_checkpoint(checkpoint_dir)
    found = choose_ranges(source, texts_file, classifier.tokenizer, source.policy())
    assert found is not None and found.texts == 3


def test_ranges_of_the_checkpoint(checkpoint_dir: Path, classifier: SmartBert) -> None:
    source, reporter = open_checkpoint(checkpoint_dir), Recorder()
    found = choose_ranges(source, None, classifier.tokenizer, source.policy(), reporter=reporter)
    assert found is source.ranges and found is not None and reporter.notes == []


def test_older_checkpoint(model: SmartBertForSequenceClassification, classifier: SmartBert, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path, ranges=False)
    source, reporter = open_checkpoint(tmp_path), Recorder()
    assert choose_ranges(source, None, classifier.tokenizer, source.policy(), reporter=reporter) is None
    (note,) = reporter.notes
    assert "no ranges of activations" in note and "--scales-file" in note


def test_ranges_without_channels(
    model: SmartBertForSequenceClassification, classifier: SmartBert, tmp_path: Path
) -> None:
    save_checkpoint(model, tmp_path)
    file = tmp_path / RANGES_FILE
    content = json.loads(file.read_text(encoding="utf-8"))
    for point in content["points"].values():
        del point["minima"], point["maxima"]
    file.write_text(json.dumps(content), encoding="utf-8")
    source, reporter = open_checkpoint(tmp_path), Recorder()
    assert choose_ranges(source, None, classifier.tokenizer, source.policy(), reporter=reporter) is source.ranges
    (note,) = reporter.notes
    assert "no ranges of its activations' channels" in note and "--scales-file" in note


def test_damaged_ranges(model: SmartBertForSequenceClassification, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path)
    file = tmp_path / RANGES_FILE
    file.write_text(file.read_text(encoding="utf-8")[:-50], encoding="utf-8")
    with pytest.raises(ExportError, match=r"activation_ranges\.json is damaged") as error:
        open_checkpoint(tmp_path)
    assert "--scales-file" in str(error.value.hint)
