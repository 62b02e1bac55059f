"""One tiny seeded real model for all tests: an encoder, a checkpoint and its exported packages, made once a session."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

# Before any other import of them: no test reaches the network.
os.environ["HF_HUB_OFFLINE"] = "1"
# A tiny model gains nothing from threads, and several test processes would spin against each other.
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from smartbert.activations.ranges import write_ranges
from smartbert.activations.record import record_ranges
from smartbert.configuration import SmartBertConfig
from smartbert.modeling import ExitHead, LearnedQueryPooling, SkipGate, SmartBertForSequenceClassification
from smartbert.trained_model import policy_of
from smartbert_export import export_package
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.parts.signatures import LAYOUTS
from smartbert_export.precisions import PRECISIONS
from smartbert_runtime import SmartBert
from smartbert_runtime.tokenizer import Tokenizer as TextTokenizer
from smartbert_runtime.tokenizer import TokenizerSettings
from tests.package_folders import export_fixed, export_fixed_single, export_layouts

# Fixtures that take half a minute: the files that use one run in one process, first of all, so that it is made once and
# no process is left with them at the end.
SLOW_FIXTURES = ("variants_dir", "layouts_dir", "fixed_dir", "fixed_single_dir", "trained")
LABELS = ("calm", "loud", "odd")
LAYERS = 4
EVERY_VARIANT = ExportOptions(graphs=GraphOptions(layouts=LAYOUTS, precisions=PRECISIONS))

# Real sentences (Lewis Carroll, Alice's Adventures in Wonderland, 1865), from three words to more than the tiny
# model's 24 tokens.
SENTENCES = (
    "Down, down, down.",
    "Curiouser and curiouser!",
    "Oh dear! Oh dear! I shall be too late!",
    "Alice was beginning to get very tired of sitting by her sister on the bank.",
    "There was nothing so very remarkable in that.",
    "Would the fall never come to an end?",
    "Either the well was very deep, or she fell very slowly.",
    "The rabbit-hole went straight on like a tunnel for some way, and then dipped suddenly down.",
    "Do cats eat bats?",
    "Do bats eat cats?",
    "She found herself in a long, low hall, which was lit up by a row of lamps hanging from the roof.",
    "Who in the world am I?",
    "It was all very well to say Drink me, but the wise little Alice was not going to do that in a hurry.",
    "What a curious feeling!",
    "Come, there is no use in crying like that!",
    "How doth the little crocodile improve his shining tail!",
    "I wish I had not cried so much!",
    "A large rose-tree stood near the entrance of the garden.",
    "Off with her head!",
    "Why is a raven like a writing-desk?",
    "We are all mad here.",
    "Begin at the beginning, and go on till you come to the end: then stop.",
    "Twinkle, twinkle, little bat! How I wonder what you are at!",
    "Everything has got a moral, if only you can find it.",
)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups for `--dist loadgroup`: the files that share a slow fixture, and otherwise each file."""
    group_of: dict[Path, str] = {}
    for item in items:
        names = getattr(item, "fixturenames", ())
        for place, name in enumerate(SLOW_FIXTURES):
            if name in names:
                group_of[item.path] = min(group_of.get(item.path, "9"), f"{place} {name}")
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of.get(item.path, str(item.path))))
    items.sort(key=lambda item: group_of.get(item.path, "8" if "studies" in item.path.parts else "9"))


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer over the sentences' own words, with single letters as pieces."""
    words = sorted({word for text in SENTENCES for word in text.lower().replace("-", " ").split()})
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    entries = [*specials, *letters, *(f"##{letter}" for letter in letters), *".,:!?-'"]
    entries += [word for word in (word.strip(".,:!?'") for word in words) if len(word) > 1]
    vocabulary = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def make_encoder_config(layers: int = LAYERS) -> BertConfig:
    """Layers of hidden size 32, otherwise BERT's."""
    return BertConfig(
        vocab_size=len(make_tokenizer()),
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=32,
        initializer_range=0.2,
    )


def make_model(seed: int = 0, head_query: str = "first") -> SmartBertForSequenceClassification:
    """A random model whose gates and exit heads each decide differently from text to text."""
    torch.manual_seed(seed)
    config = SmartBertConfig(
        backbone_config=make_encoder_config().to_dict(),
        head_width=16,
        gate_heads=2,
        exit_heads=4,
        head_query=head_query,
        gate_bias=0.0,
        exit_threshold=0.5,
        max_input_length=24,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    model = SmartBertForSequenceClassification(config)
    model.eval()
    make_decisive(model, make_tokenizer())
    return model


@torch.no_grad()
def make_decisive(model: SmartBertForSequenceClassification, tokenizer: PreTrainedTokenizerFast) -> None:
    """Spread the heads' outputs, and set each gate's bias so that it skips about a third of the sentences."""
    length = model.config.max_input_length
    batch = tokenizer(list(SENTENCES), truncation=True, max_length=length, padding=True, return_tensors="pt")
    x_bsh, mask_b11s = model.embed(batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))
    for index in range(model.config.layers):
        gate, head = cast(SkipGate, model.gates[index]), cast(ExitHead, model.exits[index])
        inner = gate.attention.queries if isinstance(gate.attention, LearnedQueryPooling) else gate.attention.value
        for weight in (gate.project.weight, head.project.weight, inner.weight, head.dense.weight):
            weight.mul_(3.0)
        gate.decide.weight.mul_(6.0)
        head.classify.weight.mul_(5.0)
        gate.decide.bias.sub_(gate(x_bsh, mask_b11s).quantile(0.67))
        x_bsh = model.run_layer(index, x_bsh, mask_b11s)


def save_checkpoint(model: SmartBertForSequenceClassification, folder: Path, *, ranges: bool = True) -> None:
    """Model, tokenizer, golden texts and, as a recent smartbert-train writes them, ranges of activations.

    And the texts that --keep-texts keeps, few of them: without these, an export makes 500 of the golden ones.
    """
    tokenizer = make_tokenizer()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    lines = [json.dumps({"text": text}) for text in SENTENCES]
    (folder / "golden_texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copyfile(folder / "golden_texts.jsonl", folder / "check_texts.jsonl")
    if ranges:
        settings = TokenizerSettings(max_length=model.config.max_input_length, pad_id=0, type_ids=True)
        tokens = TextTokenizer(tokenizer.backend_tokenizer.to_str().encode(), settings).encode(SENTENCES)
        write_ranges(folder, record_ranges(model, tokens, policy_of(model)))


@pytest.fixture(scope="session")
def model() -> SmartBertForSequenceClassification:
    """The tiny model; read only."""
    return make_model()


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained-encoder folder, as `--model` takes it; read only."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(1)
    BertModel(make_encoder_config(), add_pooling_layer=False).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint_dir(tmp_path_factory: pytest.TempPathFactory, model: SmartBertForSequenceClassification) -> Path:
    """A checkpoint folder as smartbert-train writes it (without its report); read only."""
    folder = tmp_path_factory.mktemp("checkpoint")
    save_checkpoint(model, folder)
    return folder


@pytest.fixture(scope="session")
def package_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """The exported package folder; read only (see `package_copy`)."""
    folder = tmp_path_factory.mktemp("export") / "out"
    export_package(checkpoint_dir, folder)
    return folder


@pytest.fixture
def package_copy(package_dir: Path, tmp_path: Path) -> Path:
    """A copy of the package that a test may damage."""
    return Path(shutil.copytree(package_dir, tmp_path / "out"))


@pytest.fixture(scope="session")
def variants_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """Nine variants in one folder: every layout in every precision; read only."""
    folder = tmp_path_factory.mktemp("variants") / "out"
    export_package(checkpoint_dir, folder, EVERY_VARIANT)
    return folder


@pytest.fixture(scope="session")
def classifier(package_dir: Path) -> Iterator[SmartBert]:
    """The package, opened."""
    yield SmartBert.load(package_dir)


@pytest.fixture(scope="session")
def layouts_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """Layouts separate, fused and single in fp32 and int8; read only (see `layouts_copy`)."""
    folder = tmp_path_factory.mktemp("layouts")
    (folder / "check.txt").write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    return export_layouts(folder / "out", checkpoint_dir, folder / "check.txt")


@pytest.fixture
def layouts_copy(layouts_dir: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may damage."""
    return Path(shutil.copytree(layouts_dir, tmp_path / "out"))


@pytest.fixture(scope="session")
def fixed_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """Layouts separate and fused for batches of 2 texts of 12 tokens; read only."""
    return export_fixed(tmp_path_factory.mktemp("fixed") / "out", checkpoint_dir)


@pytest.fixture(scope="session")
def fixed_single_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """Layout single for one text of 12 tokens; read only."""
    return export_fixed_single(tmp_path_factory.mktemp("fixed_single") / "out", checkpoint_dir)
