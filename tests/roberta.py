"""A tiny RoBERTa with its own byte-level tokenizer: backbones of a second family, whose positions count from padding.

RoBERTa's own ids for the special tokens: <s> 0, <pad> 1, </s> 2; it has one token type, and its first token's position
is <pad> + 1 = 2.
"""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import RobertaProcessing
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from smartbert.configuration import SmartBertConfig
from smartbert.modeling import SmartBertForSequenceClassification
from tests.conftest import SENTENCES, make_decisive

PAD_ID = 1
LAYERS = 3
# Rows of the position embeddings; the padding's and those before it are never a token's: 28 tokens at most.
POSITIONS = 30


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE learned from the sentences, with <s> and </s> around a text."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0))
    trainer = BpeTrainer(
        vocab_size=330,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_input_names=["input_ids", "attention_mask"],
    )


def make_config(vocabulary: int) -> RobertaConfig:
    """Three layers of 32, all else as RoBERTa has it."""
    return RobertaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=POSITIONS,
        pad_token_id=PAD_ID,
        type_vocab_size=1,
        initializer_range=0.2,
    )


def make_model(seed: int = 0) -> SmartBertForSequenceClassification:
    """A model on this encoder whose gates and exits all decide now this way, now that."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    config = SmartBertConfig(
        backbone_config=make_config(len(tokenizer)).to_dict(),
        head_width=16,
        gate_heads=2,
        exit_heads=4,
        gate_bias=0.0,
        exit_threshold=0.5,
        max_input_length=POSITIONS - PAD_ID - 1,
        id2label={0: "no", 1: "yes"},
        label2id={"no": 0, "yes": 1},
    )
    model = SmartBertForSequenceClassification(config)
    model.eval()
    make_decisive(model, tokenizer)
    return model


def save_encoder(folder: Path, *, vocabulary: int, seed: int = 1) -> RobertaModel:
    """A random encoder, saved into `folder` as `--model` takes it, and itself in evaluation mode."""
    torch.manual_seed(seed)
    encoder = RobertaModel(make_config(vocabulary), add_pooling_layer=False)
    encoder.eval()
    encoder.save_pretrained(folder)
    return encoder
