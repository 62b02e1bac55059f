"""configuration.py: what a checkpoint's config.json says, its defaults, and the backbones it accepts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoConfig, BertConfig

from smartbert.configuration import SmartBertConfig
from smartbert_runtime.errors import ConfigError
from tests.conftest import LABELS, make_encoder_config


def test_defaults() -> None:
    config = SmartBertConfig()
    assert (config.head_width, config.gate_heads, config.exit_heads) == (128, 2, 4)
    assert (config.gate_bias, config.skip_threshold, config.exit_threshold) == (-3.0, 0.5, 0.0)
    assert (config.head_query, config.gates, config.max_input_length) == ("first", True, 128)
    assert (config.layers, config.hidden_size) == (12, 768)  # BERT-base


def test_layers_and_hidden_size() -> None:
    config = SmartBertConfig(backbone_config=make_encoder_config().to_dict())
    assert (config.layers, config.hidden_size) == (4, 32)


def test_backbone_config() -> None:
    encoder = make_encoder_config()
    backbone = SmartBertConfig(backbone_config=encoder.to_dict()).backbone()
    assert isinstance(backbone, BertConfig)
    assert backbone.to_dict() == encoder.to_dict()


def test_unsupported_family() -> None:
    config = SmartBertConfig(backbone_config={**make_encoder_config().to_dict(), "model_type": "distilbert"})
    with pytest.raises(ConfigError, match="'distilbert' encoders are not supported") as caught:
        config.backbone()
    assert caught.value.hint == "supported model types: bert, roberta"


def test_unknown_head_query() -> None:
    with pytest.raises(ConfigError, match="head_query must be one of first, mean, learned, not 'last'"):
        SmartBertConfig(backbone_config=make_encoder_config().to_dict(), head_query="last")


def test_round_trip_keeps_every_field(tmp_path: Path) -> None:
    # Every value differs from its default: a field that is not saved cannot come back by chance.
    config = SmartBertConfig(
        backbone_config=make_encoder_config().to_dict(),
        head_width=16,
        gate_heads=4,
        exit_heads=8,
        head_query="mean",
        gates=False,
        gate_bias=-1.5,
        skip_threshold=0.25,
        exit_threshold=0.75,
        max_input_length=24,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    config.save_pretrained(tmp_path)
    loaded = SmartBertConfig.from_pretrained(tmp_path)
    names = ("head_width", "gate_heads", "exit_heads", "gate_bias", "skip_threshold", "exit_threshold")
    for name in (*names, "head_query", "gates"):
        assert getattr(loaded, name) == getattr(config, name), name
    assert loaded.max_input_length == 24
    assert loaded.backbone().to_dict() == make_encoder_config().to_dict()
    assert loaded.id2label == {0: "calm", 1: "loud", 2: "odd"}
    assert loaded.label2id == {"calm": 0, "loud": 1, "odd": 2}
    assert loaded.num_labels == 3


def test_auto_config(tmp_path: Path) -> None:
    SmartBertConfig(backbone_config=make_encoder_config().to_dict(), max_input_length=24).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))["model_type"] == "smartbert"
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, SmartBertConfig)
    assert loaded.max_input_length == 24
