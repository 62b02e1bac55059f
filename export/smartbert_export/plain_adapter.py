"""A plain fine-tuned classifier in the form of a SmartBERT model without gates and with only the last head."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from smartbert.configuration import SmartBertConfig
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import PlainClassifier
from smartbert.trained_model import input_limit
from smartbert_runtime.errors import ConfigError, ExportError


class PlainAsSmartBert(SmartBertForSequenceClassification):
    """`exits` holds an Identity for each layer but the last, and the classifier's own head for that."""

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
        PreTrainedModel.__init__(self, config)  # not SmartBERT's, which would create heads
        self.backbone = plain.backbone
        self.gates = nn.ModuleList()
        self.exits = nn.ModuleList([*(nn.Identity() for _ in range(config.layers - 1)), plain.head()])


def load_plain(folder: Path) -> SmartBertForSequenceClassification:
    """A fine-tuned classifier from a folder; ExportError for one that cannot be cut."""
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
    model = PlainAsSmartBert(plain).float().eval()
    _check_same(plain, model, folder)
    return cast(SmartBertForSequenceClassification, model)


@torch.inference_mode()
def _check_same(plain: PlainClassifier, model: PlainAsSmartBert, folder: Path) -> None:
    """ExportError unless the cut model answers as its own class does: an option may make it another kind of encoder."""
    vocabulary = int(model.config.backbone_config["vocab_size"])
    length = min(12, model.config.max_input_length)
    ids = torch.randint(5, vocabulary, (3, length), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(length) < torch.tensor([[length], [max(2, length // 2)], [2]])).long()
    ids = torch.where(mask == 1, ids, int(model.config.backbone().pad_token_id or 0))
    wanted_bc = plain.logits(ids, mask, torch.zeros_like(ids))
    hidden_bsh, mask_b11s = model.embed(ids, mask)
    *_, last = model.layer_steps(hidden_bsh, mask_b11s, no_skip=True)
    found_bc = model.exits[-1](last.hidden_bsh, mask_b11s)
    if not torch.allclose(found_bc, wanted_bc, atol=1e-5, rtol=1e-4):
        raise ExportError(
            f"{folder} does not answer as the sum of its parts does: "
            f"logits {float((found_bc - wanted_bc).abs().max()):.1e} apart",
            hint="its config describes something else than a plain encoder, such as is_decoder",
        )
