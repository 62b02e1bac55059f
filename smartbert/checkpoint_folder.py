"""A checkpoint folder: its model and tokenizer loaded, the names of its files, its texts for golden samples written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from smartbert.backbones import load_whole
from smartbert.configuration import SmartBertConfig
from smartbert.data.splits import Split
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import PlainClassifier, is_plain
from smartbert.trained_model import Classifier, backbone_config
from smartbert_runtime.errors import ConfigError, InputError

REPORT_FILE = "training_report.json"
GOLDEN_TEXTS_FILE = "golden_texts.jsonl"
GOLDEN_TEXTS = 32
CHECK_TEXTS_FILE = "check_texts.jsonl"


def load_tokenizer(name_or_dir: str, *, vocab_size: object) -> PreTrainedTokenizerFast:
    """The encoder's fast tokenizer; ConfigError when there is none, or not one for `vocab_size` embeddings."""
    if not isinstance(vocab_size, int):
        raise ConfigError(
            f"the config of {name_or_dir!r} gives vocab_size as {vocab_size!r}", hint="it must be a whole number"
        )
    hint = "the folder needs the tokenizer.json that belongs to its weights"
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_dir)
    except Exception as err:  # tokenizers raises a bare Exception for a file that is not a tokenizer
        raise ConfigError(
            f"the tokenizer of {name_or_dir!r} cannot be loaded: {str(err).strip().splitlines()[0]}", hint=hint
        ) from err
    if not tokenizer.is_fast:
        raise ConfigError(f"{name_or_dir!r} has no fast tokenizer", hint=hint)
    # transformers 5 makes up an empty tokenizer where the folder has none: every word would be [UNK].
    if not vocab_size // 2 <= len(tokenizer) <= vocab_size:
        raise ConfigError(
            f"the tokenizer of {name_or_dir!r} knows {len(tokenizer)} tokens, its encoder {vocab_size}", hint=hint
        )
    # Batches are padded and cut by our own code; the saved file must not bring settings of its own.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return cast(PreTrainedTokenizerFast, tokenizer)


def load_classifier(folder: Path) -> tuple[Classifier, PreTrainedTokenizerFast]:
    """A checkpoint of any arm, on the GPU where there is one, with its tokenizer; InputError for any other folder."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        model_type = str(config.get("model_type"))
    except (OSError, ValueError, AttributeError) as err:
        raise InputError(f"{folder} is not a checkpoint", hint="give smartbert-train's OUTPUT") from err
    if model_type == SmartBertConfig.model_type:
        model: Classifier = load_whole(SmartBertForSequenceClassification, str(folder))
    elif is_plain(model_type):
        model = PlainClassifier.from_checkpoint(folder)
    else:
        raise InputError(f"{folder} holds a {model_type!r} model", hint="give smartbert-train's OUTPUT, of any arm")
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    model = model.float().eval().to(device or "cpu")
    return model, load_tokenizer(str(folder), vocab_size=int(backbone_config(model)["vocab_size"]))


def write_golden_texts(file: Path, dev: Split, lengths: Sequence[int]) -> None:
    """GOLDEN_TEXTS dev texts, evenly spread from the shortest to the longest, which the package will replay."""
    by_length = sorted(range(len(dev)), key=lambda row: (lengths[row], row))
    places = np.linspace(0, len(by_length) - 1, min(GOLDEN_TEXTS, len(by_length))).round().astype(int)
    _write_lines(file, dev, [by_length[place] for place in places], [{}] * len(places))


def write_check_texts(file: Path, validation: Split, labels: Sequence[str], count: int) -> None:
    """The first `count` validation texts with their labels, on which an export judges quantized parts."""
    rows = list(range(min(count, len(validation))))
    _write_lines(file, validation, rows, [{"label": labels[validation.label_ids[row]]} for row in rows])


def _write_lines(file: Path, split: Split, rows: Sequence[int], more: Sequence[dict[str, str]]) -> None:
    with file.open("w", encoding="utf-8") as stream:
        for row, columns in zip(rows, more, strict=True):
            pair = {"text_pair": split.pairs[row]} if split.pairs is not None else {}
            stream.write(json.dumps({"text": split.texts[row], **pair, **columns}, ensure_ascii=False) + "\n")
