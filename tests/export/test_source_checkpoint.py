"""Opening a checkpoint: what an export needs of it, and a named error with a hint for every other folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import DistilBertConfig, DistilBertModel

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.source_checkpoint import open_checkpoint
from smartbert_runtime.errors import ExportError, SmartBertError
from smartbert_runtime.tokenizer import TokenizerSettings
from tests.conftest import LABELS


@pytest.fixture
def damaged(checkpoint_dir: Path, tmp_path: Path) -> Path:
    """A checkpoint that a test may damage."""
    return Path(shutil.copytree(checkpoint_dir, tmp_path / "ckpt"))


def change_weights(folder: Path, changes: dict[str, torch.Tensor | None]) -> None:
    weights = {**load_file(folder / "model.safetensors"), **changes}
    kept = {name: tensor for name, tensor in weights.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def refusal(folder: Path) -> SmartBertError:
    with pytest.raises(SmartBertError) as error:
        open_checkpoint(folder)
    assert error.value.hint, "every error says what to do"
    return error.value


def test_opened_checkpoint(checkpoint_dir: Path, model: SmartBertForSequenceClassification) -> None:
    opened = open_checkpoint(checkpoint_dir)
    assert opened.labels == LABELS
    assert opened.tokenizer_settings(8) == TokenizerSettings(max_length=8, pad_id=0, type_ids=True)
    content = (checkpoint_dir / "model.safetensors").read_bytes() + (checkpoint_dir / "config.json").read_bytes()
    assert opened.sha256 == hashlib.sha256(content).hexdigest()
    assert opened.training == {}
    assert json.loads(opened.tokenizer_json)["truncation"] is None
    assert not opened.model.training
    state = opened.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())


def test_half_precision_becomes_float32(damaged: Path) -> None:
    weights = load_file(damaged / "model.safetensors")
    change_weights(damaged, {name: tensor.half() for name, tensor in weights.items()})
    opened = open_checkpoint(damaged)
    assert {tensor.dtype for tensor in opened.model.parameters()} == {torch.float32}


def test_training_report(damaged: Path) -> None:
    report = {"base_model": "tiny", "texts": {}, "dev": {}, "dev_full_depth": {}, "settings": {}}
    (damaged / "training_report.json").write_text(json.dumps(report), encoding="utf-8")
    assert open_checkpoint(damaged).training == report


def test_incomplete_training_report(damaged: Path) -> None:
    (damaged / "training_report.json").write_text('{"base_model": "tiny"}', encoding="utf-8")
    assert "lacks what smartbert-train writes" in str(refusal(damaged))


def test_missing_folder(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere")
    assert isinstance(error, ExportError)
    assert "nowhere is not a checkpoint: it has no config.json" in str(error)
    assert "smartbert-train" in error.hint


def test_missing_weights_file(damaged: Path) -> None:
    (damaged / "model.safetensors").unlink()
    assert "it has no model.safetensors" in str(refusal(damaged))


def test_unknown_family(tmp_path: Path) -> None:
    DistilBertModel(DistilBertConfig(vocab_size=50, dim=8, n_heads=2, n_layers=1, hidden_dim=8)).save_pretrained(
        tmp_path / "other"
    )
    error = refusal(tmp_path / "other")
    assert isinstance(error, ExportError)
    assert "holds a 'distilbert' model, which cannot be exported" in str(error)
    assert "smartbert-train" in error.hint
    assert "bert, roberta" in error.hint


@pytest.mark.parametrize("content", ["{", "[1]", '"text"', ""])
def test_bad_config(damaged: Path, content: str) -> None:
    (damaged / "config.json").write_text(content, encoding="utf-8")
    error = refusal(damaged)
    assert isinstance(error, ExportError)
    assert "config.json is not a model's config" in str(error)


def test_missing_weight(damaged: Path) -> None:
    change_weights(damaged, {"gates.2.decide.bias": None})
    error = refusal(damaged)
    assert isinstance(error, ExportError)
    assert "lacks 1 weights, such as gates.2.decide.bias" in str(error)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weight_is_not_finite(damaged: Path, value: float) -> None:
    weight = load_file(damaged / "model.safetensors")["exits.1.dense.weight"]
    weight[3, 5] = value
    change_weights(damaged, {"exits.1.dense.weight": weight})
    error = refusal(damaged)
    assert isinstance(error, ExportError)
    assert "the weight exits.1.dense.weight holds NaN or infinite values" in str(error)


def test_weight_of_other_shape(damaged: Path) -> None:
    change_weights(damaged, {"exits.1.classify.weight": torch.zeros(2, 16)})
    assert "cannot be loaded" in str(refusal(damaged))


def test_truncated_weights_file(damaged: Path) -> None:
    content = (damaged / "model.safetensors").read_bytes()
    (damaged / "model.safetensors").write_bytes(content[: len(content) // 2])
    error = refusal(damaged)
    assert isinstance(error, ExportError)
    assert "cannot be loaded" in str(error)


def test_missing_tokenizer(damaged: Path) -> None:
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (damaged / file).unlink(missing_ok=True)
    assert "tokenizer" in str(refusal(damaged))


def test_damaged_training_report(damaged: Path) -> None:
    (damaged / "training_report.json").write_text('{"base_model": ', encoding="utf-8")
    assert "training_report.json" in str(refusal(damaged))


def test_training_only_weights_are_left_out(damaged: Path) -> None:
    change_weights(damaged, {"contrast.0.layers.0.weight": torch.ones(16, 32)})
    assert not [name for name in open_checkpoint(damaged).model.state_dict() if "contrast" in name]
