"""A plain fine-tuned classifier, with the face of a SmartBERT that has no gates and no head but the last."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from torch import nn
from transformers import PreTrainedModel

from smartbert.classifier import input_limit
from smartbert.configuration import SmartBertConfig
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain import PlainClassifier
from smartbert_runtime.errors import ConfigError, ExportError


class PlainAsSmartBert(SmartBertForSequenceClassification):
    """`exits` has an Identity where SmartBERT has a head, and the classifier's own head behind the last layer."""

    def __init__(self, plain: PlainClassifier) -> None:
        own = plain.classifier.config
        config = SmartBertConfig(
            backbone_config=plain.backbone_config,
            gates=False,
            early_exits=False,
            max_input_length=input_limit(plain),
            id2label=own.id2label,
            label2id=own.label2id,
        )
        PreTrainedModel.__init__(self, config)  # not SmartBERT's, which would make heads
        self.backbone = plain.backbone
        self.gates = nn.ModuleList()
        self.exits = nn.ModuleList([*(nn.Identity() for _ in range(config.layers - 1)), plain.head()])


def load_plain(folder: Path) -> SmartBertForSequenceClassification:
    """A fine-tuned classifier from a folder; ExportError for one that cannot be cut."""
    try:
        plain = PlainClassifier.from_checkpoint(folder)
    except ConfigError as err:
        raise ExportError(str(err), hint=err.hint) from err
    kind = getattr(plain.classifier.config, "problem_type", None)
    if kind not in (None, "single_label_classification") or plain.classifier.config.num_labels < 2:
        raise ExportError(
            f"{folder} is a model for {kind or 'regression'}, not for one label of several",
            hint="give a classifier with two labels or more, one of them right for each text",
        )
    return cast(SmartBertForSequenceClassification, PlainAsSmartBert(plain).float().eval())
