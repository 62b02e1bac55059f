"""Tiny fine-tuned classifiers from elsewhere, each with one setting that changes ids or answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film", "the", "a", "end", "[", "]", "sep"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64, "num_labels": 3}


def word_pieces(post_processor: bool = True, lowercase: bool = True) -> Tokenizer:
    core = Tokenizer(models.WordPiece({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if post_processor:
        core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return core


def save_bert(
    folder: Path,
    tokenizer: dict[str, Any] | None = None,
    *,
    core: Tokenizer | None = None,
    shard: str = "5GB",
    **config: Any,
) -> Path:
    """A BERT of 32 positions; `tokenizer` and `config` hold the settings to change."""
    torch.manual_seed(0)
    sizes = {"vocab_size": len(WORDS), "max_position_embeddings": 32, "initializer_range": 0.4, **SIZES}
    settings = BertConfig(**{**sizes, **config})
    BertForSequenceClassification(settings).save_pretrained(folder, max_shard_size=shard)
    saved = {"model_max_length": 32, **(tokenizer or {})}
    BertTokenizerFast(tokenizer_object=core or word_pieces(), **saved).save_pretrained(folder)
    return folder


def save_roberta(folder: Path, *, pad: str = "<pad>", **tokenizer: Any) -> Path:
    """A RoBERTa whose config pads with 1, which is `</s>`; its tokenizer pads with `pad`."""
    names = ["<s>", "</s>", "<unk>", "<pad>", "<mask>", "good", "film", "the", "end", "bad"]
    if pad == "config":
        names[1], names[3], pad = "<pad>", "</s>", "<pad>"
    vocabulary = {word: number for number, word in enumerate(names)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.RobertaProcessing(("</s>", vocabulary["</s>"]), ("<s>", 0))
    torch.manual_seed(0)
    settings = RobertaConfig(
        vocab_size=len(vocabulary), max_position_embeddings=40, initializer_range=0.4, pad_token_id=1, **SIZES
    )
    RobertaForSequenceClassification(settings).save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        cls_token="<s>",
        unk_token="<unk>",
        pad_token=pad,
        mask_token="<mask>",
        **{"model_max_length": 38, **tokenizer},
    ).save_pretrained(folder)
    return folder


@torch.inference_mode()
def own_answer(folder: Path, text: str, pair: str | None = None, longest: int | None = None) -> list[float]:
    """Probabilities of the checkpoint's own class and tokenizer, one text at a time."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    batch = tokenizer(text, pair, truncation=True, max_length=longest, return_tensors="pt")
    probabilities: list[float] = model(**batch)[0].softmax(dim=-1)[0].tolist()
    return probabilities
