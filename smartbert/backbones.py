"""The encoder families that can be backbones, one small entry each, and how their pretrained weights are loaded.

A family fits when its model has `embeddings` and `encoder.layer`, and a layer takes (hidden (b,s,h), additive mask
(b,1,1,s)) as BERT's does. A third, such as XLM-RoBERTa, is one more entry:
`"xlm-roberta": Family(XLMRobertaConfig, XLMRobertaModel, counts_from_padding=True)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertModel,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

from smartbert_runtime.errors import ConfigError


@dataclass(frozen=True)
class Family:
    """One kind of encoder.

    counts_from_padding: the first token's position is the padding id + 1, as in fairseq's models, instead of 0.
    """

    config_class: type[PretrainedConfig]
    model_class: Any
    counts_from_padding: bool = False

    def first_position(self, config: PretrainedConfig) -> int:
        """The row of the position embeddings that belongs to a text's first token."""
        return int(config.pad_token_id or 0) + 1 if self.counts_from_padding else 0

    def longest_input(self, config: PretrainedConfig) -> int:
        """The most tokens that there are position embeddings for."""
        return int(config.max_position_embeddings) - self.first_position(config)

    def build(self, config: PretrainedConfig) -> PreTrainedModel:
        """A fresh encoder, without the pooler, which nothing here uses."""
        # Plain matrix products: what is traced for ONNX is then exactly what runs here.
        config._attn_implementation = "eager"
        model: PreTrainedModel = self.model_class(config, add_pooling_layer=False)
        return model

    def embed(self, encoder: Any, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Ids (b,s) -> hidden (b,s,h)."""
        # fairseq's models count their own positions, leaving out the padding id wherever it stands, also where a text
        # spells the padding token out. BERT's are a slice of the model's own buffer: one ONNX operator.
        positions = encoder.embeddings.position_ids[:, : input_ids.shape[1]]
        position_ids = None if self.counts_from_padding else positions
        hidden_bsh: Tensor = encoder.embeddings(
            input_ids=input_ids, token_type_ids=token_type_ids, position_ids=position_ids
        )
        return hidden_bsh


FAMILIES: dict[str, Family] = {
    "bert": Family(BertConfig, BertModel),
    "roberta": Family(RobertaConfig, RobertaModel, counts_from_padding=True),
}


# Settings that make another kind of encoder of a known family, and the values with which they do not.
PLAIN_SETTINGS: dict[str, tuple[object, ...]] = {
    "position_embedding_type": (None, "absolute"),
    "is_decoder": (None, False),
    "add_cross_attention": (None, False),
    "pruned_heads": (None, {}),
}


def family_of(backbone_config: dict[str, Any]) -> Family:
    """The family that a config's `model_type` names; ConfigError lists the supported ones.

    Raises ConfigError too for a setting that makes another kind of encoder of it, such as relative positions.
    """
    name = str(backbone_config.get("model_type"))
    if name not in FAMILIES:
        raise ConfigError(
            f"{name!r} encoders are not supported as backbones",
            hint="supported model types: " + ", ".join(FAMILIES),
        )
    for setting, supported in PLAIN_SETTINGS.items():
        if (value := backbone_config.get(setting)) not in supported:
            raise ConfigError(
                f"encoders with {setting} {value!r} in their config.json are not supported",
                hint="take an encoder with absolute positions, all its heads and attention in both directions",
            )
    return FAMILIES[name]


def read_backbone_config(name_or_dir: str, keep_layers: int = 0) -> dict[str, Any]:
    """The config of a pretrained encoder (hub name or folder) as a dictionary.

    A checkpoint written by smartbert-train, of any arm, stands for the encoder inside it: a warm start.
    keep_layers: use only the encoder's first layers (0: all).
    """
    config: dict[str, Any] = load_or_explain(AutoConfig, name_or_dir).to_dict()
    config = config.get("backbone_config", config)
    family_of(config)
    layers = config.get("num_hidden_layers")
    if not isinstance(layers, int) or layers < 1:
        raise ConfigError(
            f"the config of {name_or_dir!r} gives num_hidden_layers as {layers!r}", hint="it must be a whole number"
        )
    if not 0 <= keep_layers <= layers:
        raise ConfigError(
            f"{keep_layers} layers cannot be kept: {name_or_dir!r} has {layers}", hint="change --keep-layers"
        )
    # Without the path it was read from, which is private and would change the checkpoint's digest.
    config.pop("_name_or_path", None)
    return {**config, "num_hidden_layers": keep_layers or layers}


def check_length(backbone_config: dict[str, Any], max_input_length: int) -> None:
    """ConfigError unless the encoder has positions for texts of `max_input_length` tokens."""
    family = family_of(backbone_config)
    limit = family.longest_input(family.config_class.from_dict(backbone_config))
    if not 2 <= max_input_length <= limit:
        raise ConfigError(
            f"the longest input must be from 2 to {limit} tokens, the backbone's limit, not {max_input_length}",
            hint="change --max-length",
        )


def load_backbone_weights(encoder: PreTrainedModel, name_or_dir: str) -> None:
    """Load pretrained weights into a fresh encoder (safetensors only); layers that it does not have are left out.

    A pooler that the pretrained encoder lacks keeps its fresh weights.
    """
    pools = getattr(encoder, "pooler", None) is not None
    options = {"num_hidden_layers": encoder.config.num_hidden_layers, "add_pooling_layer": pools}
    loader: Any = type(encoder)
    if "backbone_config" in load_or_explain(AutoConfig, name_or_dir).to_dict():
        loader, options = AutoModelForSequenceClassification, {}
    pretrained = load_whole(loader, name_or_dir, fresh=("pooler.",), **options)
    # Copied: wrapping the loaded encoder itself would make transformers initialize it once more.
    weights = getattr(pretrained, "backbone", pretrained).state_dict()
    own = encoder.state_dict()
    encoder.load_state_dict({name: weights.get(name, own[name]) for name in own})


def load_whole(loader: Any, name_or_dir: str, *, fresh: tuple[str, ...] = (), **options: Any) -> Any:
    """`loader.from_pretrained`, safetensors only; ConfigError where the file lacks weights.

    fresh: prefixes of weights that may be missing and are then initialized.
    """
    model, info = load_or_explain(loader, name_or_dir, use_safetensors=True, output_loading_info=True, **options)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(fresh))
    if missing:
        raise ConfigError(
            f"{name_or_dir!r} lacks {len(missing)} weights, such as {missing[0]}",
            hint="its model.safetensors is incomplete, or belongs to another config.json",
        )
    return model


def load_or_explain(loader: Any, name_or_dir: str, **options: Any) -> Any:
    """`loader.from_pretrained`, with its many errors turned into one that has a hint."""
    try:
        return loader.from_pretrained(name_or_dir, **options)
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RuntimeError,
        SafetensorError,
        StrictDataclassError,  # transformers 5 raises it for a config field of a wrong type
    ) as err:
        first_line = str(err).strip().splitlines()[0]
        raise ConfigError(
            f"the encoder {name_or_dir!r} cannot be loaded: {first_line}",
            hint="give a folder with config.json and model.safetensors, or a hub name that you can reach",
        ) from err
