"""A trained model of any arm, SmartBERT or a plain classifier, behind the same functions."""

from __future__ import annotations

from typing import Any, cast

from transformers import PreTrainedTokenizerFast

from smartbert.backbones import family_of
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import PlainClassifier
from smartbert_runtime.decisions.policy import Policy

Classifier = SmartBertForSequenceClassification | PlainClassifier


def saved_model(model: Classifier) -> Any:
    """The Hugging Face model inside, which `save_pretrained` writes."""
    return model.classifier if isinstance(model, PlainClassifier) else model


def backbone_config(model: Classifier) -> dict[str, Any]:
    """The config of the encoder inside."""
    return model.backbone_config if isinstance(model, PlainClassifier) else model.config.backbone_config


def label_names(model: Classifier) -> tuple[str, ...]:
    """The labels in the order of the logits."""
    names: dict[int, str] = saved_model(model).config.id2label
    return tuple(str(names[number]) for number in sorted(names))


def input_limit(model: Classifier, tokenizer: PreTrainedTokenizerFast) -> int:
    """Tokens that texts are cut to: a checkpoint's own setting; of a classifier from elsewhere, its tokenizer's.

    There too at most as many as there are positions.
    """
    given = getattr(saved_model(model).config, "max_input_length", None)
    if given:
        return int(given)
    family = family_of(backbone_config(model))
    longest = family.longest_input(family.config_class.from_dict(backbone_config(model)))
    return int(min(longest, tokenizer.model_max_length))


def trained_on_pairs(model: Classifier) -> bool | None:
    """Whether the model was trained on pairs of texts; None where its config does not say so."""
    return cast(bool | None, getattr(saved_model(model).config, "text_pairs", None))


def has_gates(model: Classifier) -> bool:
    """Whether the model can skip layers."""
    return isinstance(model, SmartBertForSequenceClassification) and len(model.gates) > 0


def policy_of(model: Classifier) -> Policy:
    """The thresholds stored in the checkpoint."""
    config = saved_model(model).config
    return Policy(
        skip_threshold=float(getattr(config, "skip_threshold", 0.5)),
        exit_threshold=float(getattr(config, "exit_threshold", 0.0)),
    )
