"""SmartBertConfig: a checkpoint's config.json, read by `from_pretrained` like any Hugging Face model's."""

from __future__ import annotations

from typing import Any

from transformers import BertConfig, PretrainedConfig

from smartbert.backbones import Family, family_of
from smartbert_runtime.errors import ConfigError

FIRST, MEAN, LEARNED = HEAD_QUERIES = ("first", "mean", "learned")


class SmartBertConfig(PretrainedConfig):
    """A backbone's config and what SmartBERT adds to it.

    backbone_config: the encoder's own config as a dictionary; its `model_type` names the family.
    head_width: width of gates and exit heads (128); gate_heads, exit_heads: their attention heads (2, 4).
    head_query: the query of their attention: "first", token 0 (paper); "mean", the mean of all tokens; or "learned",
    a weight vector for each attention head, which is then all that the attention has: no query, key or value product.
    gates: false for a model without gates, which never skips, such as the control arm DeeBERT.
    early_exits: false for a plain classifier, whose only head follows the last layer; no such model is trained.
    gate_bias: the gates' last bias at the start of training; -3 begins at "run the layer" (skip probability 0.05).
    skip_threshold, exit_threshold: the thresholds chosen after training (probability; normalized entropy, 0 to 1).
    max_input_length: texts are cut to this many tokens, in training and on the device.
    text_pairs: whether it was trained on pairs of texts; None in checkpoints that do not say so.
    """

    model_type = "smartbert"

    def __init__(
        self,
        *,
        backbone_config: dict[str, Any] | None = None,
        head_width: int = 128,
        gate_heads: int = 2,
        exit_heads: int = 4,
        head_query: str = "first",
        gates: bool = True,
        early_exits: bool = True,
        gate_bias: float = -3.0,
        skip_threshold: float = 0.5,
        exit_threshold: float = 0.0,
        max_input_length: int = 128,
        text_pairs: bool | None = None,
        **kwargs: Any,
    ) -> None:
        self.backbone_config = backbone_config or BertConfig().to_dict()
        self.head_width = head_width
        self.gate_heads = gate_heads
        self.exit_heads = exit_heads
        self.head_query = head_query
        self.gates = gates
        self.early_exits = early_exits
        self.gate_bias = gate_bias
        self.skip_threshold = skip_threshold
        self.exit_threshold = exit_threshold
        self.max_input_length = max_input_length
        self.text_pairs = text_pairs
        if head_query not in HEAD_QUERIES:
            raise ConfigError(f"head_query must be one of {', '.join(HEAD_QUERIES)}, not {head_query!r}")
        super().__init__(**kwargs)

    def family(self) -> Family:
        """The backbone's family; ConfigError for an unsupported one."""
        return family_of(self.backbone_config)

    def backbone(self) -> PretrainedConfig:
        """The backbone's config as an object; ConfigError for an unsupported family."""
        return self.family().config_class.from_dict(self.backbone_config)

    @property
    def layers(self) -> int:
        """L, the number of encoder layers."""
        return int(self.backbone_config["num_hidden_layers"])

    @property
    def hidden_size(self) -> int:
        """h, the width of the encoder."""
        return int(self.backbone_config["hidden_size"])
