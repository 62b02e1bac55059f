"""Models from elsewhere: the package answers as the checkpoint's own class and tokenizer do, or is refused by name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from smartbert.backbones import read_backbone_config
from smartbert_export import export_package
from smartbert_export.options import ExportOptions
from smartbert_runtime import SmartBert
from smartbert_runtime.errors import ConfigError, ExportError
from tests.cases.tiny_classifiers import WORDS, own_answer, save_bert, save_roberta, word_pieces

GOLDEN = ["good film the end", "bad film", "a good bad film the end", "film"]
# Longer than any limit here, its ends unlike; special tokens of both families spelt out; unknown words, case, accents.
TEXTS = [
    "good " * 40 + "bad " * 20,
    "good " * 6 + "bad " * 9,
    "good film [SEP] bad [PAD] the end [MASK][CLS] film",
    "good film </s> bad <pad> the end <mask><s> film",
    "good film the <end> film the end",
    "GOOD Film, the\u00a0\u00e9nd \u6771 [ sep ]",
    "film",
]
PAIRS = [("good film", "bad " * 50), ("bad " * 50, "good film"), ("good " * 30, "bad " * 30), ("a", "the end")]


def package_of(checkpoint: Path, folder: Path) -> SmartBert:
    golden = folder / "golden.txt"
    golden.write_text("\n".join(GOLDEN) + "\n", encoding="utf-8")
    export_package(checkpoint, folder / "out", ExportOptions(golden_file=golden))
    return SmartBert.load(folder / "out")


def lower_cased_twice(folder: Path) -> Path:
    """tokenizer_config.json says otherwise than tokenizer.json; the library obeys the former."""
    save_bert(folder, core=word_pieces(lowercase=False))
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "do_lower_case": True}), encoding="utf-8")
    return folder


def truncation_in_tokenizer_json(folder: Path) -> Path:
    save_bert(folder)
    file = str(folder / "tokenizer.json")
    core = Tokenizer.from_file(file)
    core.enable_truncation(12, direction="left")
    core.enable_padding(direction="left", length=30)
    core.save(file)
    return folder


def linked(folder: Path) -> Path:
    """Links to files of another folder, as in a hub's cache."""
    blobs = save_bert(folder.with_name("blobs"))
    folder.mkdir()
    for file in blobs.iterdir():
        (folder / file.name).symlink_to(os.path.relpath(file, folder))
    return folder


def added_tokens(folder: Path) -> Path:
    """Two tokens more than the vocabulary file has, one of them special."""
    save_bert(folder, vocab_size=len(WORDS) + 2)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["film the"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"]})
    tokenizer.save_pretrained(folder)
    return folder


CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    "left": lambda folder: save_bert(folder, {"truncation_side": "left"}),
    "left, in tokenizer.json": truncation_in_tokenizer_json,
    "short": lambda folder: save_bert(folder, {"model_max_length": 8}),
    "short and left": lambda folder: save_bert(folder, {"model_max_length": 9, "truncation_side": "left"}),
    "padding on the left": lambda folder: save_bert(folder, {"padding_side": "left"}),
    "special tokens split": lambda folder: save_bert(folder, {"split_special_tokens": True}),
    "no post-processor": lambda folder: save_bert(folder, core=word_pieces(post_processor=False)),
    "case kept": lambda folder: save_bert(folder, {"do_lower_case": False}, core=word_pieces(lowercase=False)),
    "case by the config": lower_cased_twice,
    "another padding token": lambda folder: save_bert(folder, {"pad_token": "[MASK]"}),
    "torchscript": lambda folder: save_bert(folder, torchscript=True),
    "tuples": lambda folder: save_bert(folder, return_dict=False),
    "hidden states too": lambda folder: save_bert(folder, output_hidden_states=True),
    "dropout and activation": lambda folder: save_bert(folder, classifier_dropout=0.5, hidden_act="relu"),
    "one segment": lambda folder: save_bert(folder, type_vocab_size=1),
    "added tokens": added_tokens,
    "sharded": lambda folder: save_bert(folder, shard="10KB"),
    "linked": linked,
    "fairseq's positions": lambda folder: save_roberta(folder, pad="config"),
    "padded with another token": lambda folder: save_roberta(folder),
    "fairseq's, short and left": lambda folder: save_roberta(
        folder, pad="config", model_max_length=7, truncation_side="left"
    ),
}


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_answers_as_its_own_class(tmp_path: Path, name: str) -> None:
    checkpoint = CHECKPOINTS[name](tmp_path / "ckpt")
    with package_of(checkpoint, tmp_path) as model:
        for found in model.classify(TEXTS):
            wanted = own_answer(checkpoint, found.text)
            assert list(found.probabilities.values()) == pytest.approx(wanted, abs=2e-5), found.text
        if name == "one segment":
            return  # its own class fails at a second segment
        firsts, seconds = zip(*PAIRS, strict=True)
        for found in model.classify(firsts, text_pairs=seconds):
            wanted = own_answer(checkpoint, found.text, found.text_pair)
            assert list(found.probabilities.values()) == pytest.approx(wanted, abs=2e-5), found.text


@pytest.mark.parametrize(
    ("settings", "text", "wanted"),
    [
        ({"truncation_side": "left"}, "good " * 40 + "bad " * 20, [0.0048, 0.0078, 0.9875]),
        ({"model_max_length": 8}, "good " * 6 + "bad " * 9, [0.1329, 0.0524, 0.8146]),
    ],
    ids=["left", "short"],
)
def test_known_answers(tmp_path: Path, settings: dict[str, object], text: str, wanted: list[float]) -> None:
    with package_of(save_bert(tmp_path / "ckpt", settings), tmp_path) as model:
        (found,) = model.classify([text])
    assert list(found.probabilities.values()) == pytest.approx(wanted, abs=6e-5)


def test_no_limit_of_its_own(tmp_path: Path) -> None:
    """As many tokens as there are positions, where the library alone would fail at a longer text."""
    checkpoint = save_bert(tmp_path / "ckpt", {"model_max_length": 10**30})
    with package_of(checkpoint, tmp_path) as model:
        (found,) = model.classify([TEXTS[0]])
    assert list(found.probabilities.values()) == pytest.approx(own_answer(checkpoint, TEXTS[0], longest=32), abs=2e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"position_embedding_type": "relative_key_query"}, "position_embedding_type 'relative_key_query'"),
        ({"is_decoder": True}, "is_decoder True"),
        ({"pruned_heads": {0: [1]}}, "pruned_heads"),
    ],
    ids=str,
)
def test_other_encoders_are_refused_before_training(tmp_path: Path, settings: dict[str, object], words: str) -> None:
    save_bert(tmp_path / "ckpt")
    config = json.loads((tmp_path / "ckpt" / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "ckpt" / "config.json").write_text(json.dumps({**config, **settings}), encoding="utf-8")
    with pytest.raises(ConfigError, match=words) as refused:
        read_backbone_config(str(tmp_path / "ckpt"))
    assert "absolute positions" in refused.value.hint
    with pytest.raises((ExportError, ConfigError), match=words):
        package_of(tmp_path / "ckpt", tmp_path)


@pytest.mark.parametrize("missing", ["model-00002-of-00010.safetensors", "model.safetensors.index.json"])
def test_incomplete_shards_are_refused(tmp_path: Path, missing: str) -> None:
    checkpoint = save_bert(tmp_path / "ckpt", shard="10KB")
    (checkpoint / missing).unlink(missing_ok=False)
    with pytest.raises((ExportError, ConfigError)):
        package_of(checkpoint, tmp_path)
    assert not (tmp_path / "out").exists()


def test_every_shard_is_in_the_digest(tmp_path: Path) -> None:
    checkpoint = save_bert(tmp_path / "ckpt", shard="10KB")
    first = package_of(checkpoint, tmp_path).package.manifest.provenance.checkpoint_sha256
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    last = sorted(other.glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-4] + b"\0\0\x80?")
    shutil.rmtree(tmp_path / "out")
    assert package_of(other, tmp_path).package.manifest.provenance.checkpoint_sha256 != first
