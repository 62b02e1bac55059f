"""Plain fine-tuning, the control arm that everyone has: all layers, one classifier, no gates and no early exits.

Pooling "first" is the family's own class (`BertForSequenceClassification`), which any exporter reads; "mean" averages
all tokens, which suits encoders made for sentence embeddings. Shape letters: b batch, s sequence, h hidden,
l layers, c classes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    PretrainedConfig,
    PreTrainedModel,
    set_seed,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from smartbert.backbones import (
    FAMILIES,
    check_length,
    family_of,
    load_backbone_weights,
    load_whole,
    read_backbone_config,
)
from smartbert.modeling import FullPass


class MeanPooledConfig(PretrainedConfig):
    """The config of a plain classifier over the mean of all tokens."""

    model_type = "smartbert-plain"

    def __init__(self, *, backbone_config: dict[str, Any] | None = None, **kwargs: Any) -> None:
        self.backbone_config = backbone_config or BertConfig().to_dict()
        super().__init__(**kwargs)


class MeanPooledForSequenceClassification(PreTrainedModel):
    """Encoder, mean of all tokens but padding, dropout, one linear layer."""

    config_class = MeanPooledConfig
    base_model_prefix = "backbone"
    main_input_name = "input_ids"
    config: MeanPooledConfig

    def __init__(self, config: MeanPooledConfig) -> None:
        super().__init__(config)
        family = family_of(config.backbone_config)
        encoder_config = family.config_class.from_dict(config.backbone_config)
        self.backbone = family.build(encoder_config)
        self.dropout = nn.Dropout(float(encoder_config.hidden_dropout_prob))
        self.classify = nn.Linear(int(encoder_config.hidden_size), config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the constructors have done it."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Ids (b,s) -> logits (b,c), and the loss where labels (b) are given."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        # By place: a config with `return_dict` false or `torchscript` true gives a tuple.
        hidden_bsh = self.backbone(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)[0]
        weight_bs1 = attention_mask[:, :, None].to(hidden_bsh.dtype)
        mean_bh = (hidden_bsh * weight_bs1).sum(dim=1) / weight_bs1.sum(dim=1)
        logits_bc = self.classify(self.dropout(mean_bh))
        loss = None if labels is None else nn.functional.cross_entropy(logits_bc, labels)
        return SequenceClassifierOutput(loss=cast(Any, loss), logits=cast(Any, logits_bc))


class PlainHead(nn.Module):
    """A plain classifier's answer with an exit head's interface: from the last hidden state and the additive mask.

    dense: the layer with tanh before the classifier, which poolers and RoBERTa's head have; None for mean pooling.
    """

    def __init__(self, dense: nn.Linear | None, classify: nn.Linear) -> None:
        super().__init__()
        self.dense, self.classify = dense, classify

    def forward(self, hidden_bsh: Tensor, mask_b11s: Tensor) -> Tensor:
        """(b,s,h), (b,1,1,s) -> logits (b,c)."""
        if self.dense is None:
            # Softmax over the mask alone: 1/n for each of n tokens, exactly 0 for padding.
            pooled_b1h = mask_b11s.squeeze(1).softmax(dim=-1) @ hidden_bsh
        else:
            pooled_b1h = torch.tanh(self.dense(hidden_bsh[:, 0:1]))
        return cast(Tensor, self.classify(pooled_b1h)).squeeze(1)


class PlainClassifier(nn.Module):
    """Either kind of plain classifier, with the interface of SmartBERT's model: one answer, after the last layer."""

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        self.classifier = classifier
        config: Any = classifier.config
        self.backbone_config: dict[str, Any] = (
            config.backbone_config if isinstance(config, MeanPooledConfig) else config.to_dict()
        )

    @classmethod
    def from_backbone(
        cls,
        name_or_dir: str,
        *,
        pooling: str,
        seed: int = 0,
        keep_layers: int = 0,
        max_input_length: int = 128,
        **settings: Any,
    ) -> PlainClassifier:
        """A pretrained encoder (hub name or folder, safetensors only) with a fresh classifier.

        settings: `id2label` and `label2id`. Raises ConfigError for an encoder that cannot be used.
        """
        backbone_config = read_backbone_config(name_or_dir, keep_layers)
        check_length(backbone_config, max_input_length)
        set_seed(seed)
        if pooling == "mean":
            model: Any = MeanPooledForSequenceClassification(
                MeanPooledConfig(backbone_config=backbone_config, **settings)
            )
            load_backbone_weights(model.backbone, name_or_dir)
        else:
            config = family_of(backbone_config).config_class.from_dict({**backbone_config, **settings})
            model = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
            load_backbone_weights(model.base_model, name_or_dir)
        model.config.max_input_length = max_input_length
        return cls(model)

    @classmethod
    def from_checkpoint(cls, folder: Path) -> PlainClassifier:
        """A checkpoint that `smartbert-train --arm plain` wrote, or any fine-tuned classifier of a known family."""
        return cls(load_whole(AutoModelForSequenceClassification, str(folder), attn_implementation="eager"))

    @property
    def pooling(self) -> str:
        """What the classifier reads: "mean" or "first"."""
        return "mean" if isinstance(self.classifier, MeanPooledForSequenceClassification) else "first"

    @property
    def backbone(self) -> nn.Module:
        """The encoder, which learns at its own rate."""
        return cast(nn.Module, getattr(self.classifier, self.classifier.base_model_prefix))

    def head(self) -> PlainHead:
        """What answers after the last layer, without its dropout."""
        model: Any = self.classifier
        if self.pooling == "mean":
            return PlainHead(None, model.classify)
        if isinstance(model.classifier, nn.Linear):  # BERT: a pooler, then the classifier
            return PlainHead(model.base_model.pooler.dense, model.classifier)
        return PlainHead(model.classifier.dense, model.classifier.out_proj)

    def logits(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Ids (b,s) -> logits (b,c)."""
        output = self.classifier(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
        return cast(Tensor, output[0])  # a config may have it return a tuple

    def full_pass(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **policy: Any,
    ) -> FullPass:
        """As SmartBERT's, with no gate (-inf) and no head but the last (NaN)."""
        logits_bc = self.logits(input_ids, attention_mask, token_type_ids)
        layers = int(self.backbone_config["num_hidden_layers"])
        logits_blc = logits_bc.new_full((logits_bc.shape[0], layers, logits_bc.shape[1]), math.nan)
        logits_blc[:, -1] = logits_bc
        return FullPass(logits_bc.new_full((logits_bc.shape[0], layers), -math.inf), logits_blc)


def is_plain(model_type: str) -> bool:
    """Whether a checkpoint with this `model_type` in its config is a plain classifier that can be read here."""
    return model_type == MeanPooledConfig.model_type or model_type in FAMILIES


AutoConfig.register(MeanPooledConfig.model_type, MeanPooledConfig)
AutoModelForSequenceClassification.register(MeanPooledConfig, MeanPooledForSequenceClassification)
