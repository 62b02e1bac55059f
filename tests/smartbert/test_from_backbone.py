"""SmartBertForSequenceClassification.from_backbone: the encoder's own weights, or an error that says why not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, DistilBertConfig, DistilBertModel

from smartbert.checkpoint_folder import load_tokenizer
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_runtime.errors import ConfigError
from tests.conftest import make_encoder_config, make_tokenizer

from_backbone = SmartBertForSequenceClassification.from_backbone


@pytest.fixture
def encoder_copy(encoder_dir: Path, tmp_path: Path) -> Path:
    """A copy of the encoder folder that a test may damage."""
    return Path(shutil.copytree(encoder_dir, tmp_path / "encoder"))


def test_encoder_weights_are_loaded(encoder_dir: Path) -> None:
    stored = load_file(encoder_dir / "model.safetensors")
    loaded = from_backbone(str(encoder_dir), max_input_length=24).backbone.state_dict()
    assert [name for name in stored if not torch.equal(loaded[name], stored[name])] == []
    assert set(loaded) - set(stored) <= {"embeddings.position_ids", "embeddings.token_type_ids"}  # counted, not learned


def test_half_precision_weights_become_float32(encoder_copy: Path) -> None:
    stored = {name: tensor.half() for name, tensor in load_file(encoder_copy / "model.safetensors").items()}
    save_file(stored, encoder_copy / "model.safetensors", metadata={"format": "pt"})
    model = from_backbone(str(encoder_copy), max_input_length=24)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    name = "encoder.layer.2.attention.self.query.weight"
    assert torch.equal(model.backbone.state_dict()[name], stored[name].float())


def test_settings_become_the_config(encoder_dir: Path) -> None:
    model = from_backbone(
        str(encoder_dir), max_input_length=20, head_width=8, skip_threshold=0.4, id2label={0: "a", 1: "b"}
    )
    assert (model.config.max_input_length, model.config.head_width, model.config.skip_threshold) == (20, 8, 0.4)
    assert model.config.num_labels == 2
    assert model.config.backbone_config["num_hidden_layers"] == 4


@pytest.mark.parametrize("tokens", [1, 33])
def test_length_beyond_the_backbone(encoder_dir: Path, tokens: int) -> None:
    with pytest.raises(ConfigError, match=f"must be from 2 to 32 tokens, .*, not {tokens}") as caught:
        from_backbone(str(encoder_dir), max_input_length=tokens)
    assert caught.value.hint == "change --max-length"


def test_length_of_the_backbone(encoder_dir: Path) -> None:
    assert from_backbone(str(encoder_dir), max_input_length=32).config.max_input_length == 32


def test_unsupported_family(tmp_path: Path) -> None:
    config = DistilBertConfig(vocab_size=50, dim=16, hidden_dim=32, n_layers=2, n_heads=2, max_position_embeddings=32)
    DistilBertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="'distilbert' encoders are not supported") as caught:
        from_backbone(str(tmp_path), max_input_length=24)
    assert "bert" in caught.value.hint


def test_unsupported_family_with_other_fields(tmp_path: Path) -> None:
    # Like many non-BERT configs it has no max_position_embeddings.
    (tmp_path / "config.json").write_text('{"model_type": "t5", "num_layers": 2}', encoding="utf-8")
    with pytest.raises(ConfigError, match="'t5' encoders are not supported"):
        from_backbone(str(tmp_path), max_input_length=24)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the encoder .*nowhere.* cannot be loaded") as caught:
        from_backbone(str(tmp_path / "nowhere"))
    assert "config.json and model.safetensors" in caught.value.hint


def test_folder_with_tokenizer_only(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        from_backbone(str(tmp_path), max_input_length=24)


def test_pickled_weights_are_refused(encoder_copy: Path) -> None:
    torch.save(load_file(encoder_copy / "model.safetensors"), encoder_copy / "pytorch_model.bin")
    (encoder_copy / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        from_backbone(str(encoder_copy), max_input_length=24)
    assert "model.safetensors" in caught.value.hint


def test_truncated_weights_file(encoder_copy: Path) -> None:
    file = encoder_copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match="cannot be loaded"):
        from_backbone(str(encoder_copy), max_input_length=24)


def test_missing_layer_is_refused(encoder_copy: Path) -> None:
    stored = load_file(encoder_copy / "model.safetensors")
    kept = {name: tensor for name, tensor in stored.items() if not name.startswith("encoder.layer.3.")}
    assert len(kept) == len(stored) - 16
    save_file(kept, encoder_copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=r"encoder\.layer\.3"):
        from_backbone(str(encoder_copy), max_input_length=24)


def test_weights_of_another_size(encoder_copy: Path) -> None:
    config = make_encoder_config()
    BertConfig(**{**config.to_dict(), "hidden_size": 16}).save_pretrained(encoder_copy)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        from_backbone(str(encoder_copy), max_input_length=24)


@pytest.mark.parametrize(
    "change",
    [{"num_hidden_layers": None}, {"num_hidden_layers": "six"}, {"num_hidden_layers": 0}, {"model_type": ["bert"]}, []],
)
def test_invalid_config(encoder_copy: Path, change: object) -> None:
    config = json.loads((encoder_copy / "config.json").read_text(encoding="utf-8"))
    found = {**config, **change} if isinstance(change, dict) else change
    (encoder_copy / "config.json").write_text(json.dumps(found), encoding="utf-8")
    with pytest.raises(ConfigError):
        SmartBertForSequenceClassification.from_backbone(str(encoder_copy))


def test_invalid_tokenizer_file(encoder_copy: Path) -> None:
    (encoder_copy / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "none"}}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"the tokenizer of .* cannot be loaded"):
        load_tokenizer(str(encoder_copy), vocab_size=1000)
