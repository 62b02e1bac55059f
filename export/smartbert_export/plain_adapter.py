"""A plain fine-tuned classifier in the form of a SmartBERT model without gates and with only the last head."""

from __future__ import annotations

from pathlib import Path

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from smartbert.configuration import SmartBertConfig
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import PlainClassifier
from smartbert.trained_model import input_limit
from smartbert_runtime.errors import ConfigError, ExportError


class PlainAsSmartBert(SmartBertForSequenceClassification):
    """`exits` holds an Identity for each layer but the last, and the classifier's own head for that."""

    def __init__(self, plain: PlainClassifier, max_input_length: int) -> None:
        own = plain.classifier.config
        config = SmartBertConfig(
            backbone_config=plain.backbone_config,
            gates=False,
            early_exits=False,
            max_input_length=max_input_length,
            id2label=own.id2label,
            label2id=own.label2id,
        )
        PreTrainedModel.__init__(self, config)  # not SmartBERT's, which would create heads
        self.backbone = plain.backbone
        self.gates = nn.ModuleList()
        self.exits = nn.ModuleList([*(nn.Identity() for _ in range(config.layers - 1)), plain.head()])


def load_plain(
    folder: Path, tokenizer: PreTrainedTokenizerFast
) -> tuple[PlainClassifier, SmartBertForSequenceClassification]:
    """A fine-tuned classifier from a folder, and the same weights as SmartBERT; ExportError for one that is none."""
    try:
        plain = PlainClassifier.from_checkpoint(folder)
    except ConfigError as err:
        raise ExportError(str(err), hint=err.hint) from err
    made_for = list(getattr(plain.classifier.config, "architectures", None) or [])
    if made_for and not any(name.endswith("ForSequenceClassification") for name in made_for):
        raise ExportError(
            f"{folder} holds a {made_for[0]}, which does not classify texts", hint="give a ...ForSequenceClassification"
        )
    kind = getattr(plain.classifier.config, "problem_type", None)
    if kind not in (None, "single_label_classification") or plain.classifier.config.num_labels < 2:
        raise ExportError(
            f"{folder} is a model for {kind or 'regression'}, not for one label of several",
            hint="give a classifier with two labels or more, one of them right for each text",
        )
    plain.float().eval()
    return plain, PlainAsSmartBert(plain, input_limit(plain, tokenizer)).float().eval()
