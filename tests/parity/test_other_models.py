"""Parity for other models: text pairs, gates that skip every layer, heads with other queries, a RoBERTa."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from smartbert.configuration import SmartBertConfig
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export import export_package
from smartbert_runtime import Policy, SmartBert
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import read_golden
from smartbert_runtime.parity.verify import require_parity, verify
from smartbert_runtime.sessions.sessions import Sessions
from tests import roberta
from tests.conftest import SENTENCES, make_model, make_tokenizer
from tests.parity.paper_oracle import paper_answer

PAIRS = tuple(reversed(SENTENCES))


def two_class_model() -> SmartBertForSequenceClassification:
    """The tiny model of another seed, its third class taken away."""
    three = make_model(seed=5)
    config: SmartBertConfig = copy.deepcopy(three.config)
    config.id2label, config.label2id = {0: "no", 1: "yes"}, {"no": 0, "yes": 1}
    model = SmartBertForSequenceClassification(config)
    model.eval()
    model.load_state_dict(
        {name: tensor[:2] if ".classify." in name else tensor for name, tensor in three.state_dict().items()}
    )
    return model


def skipping_model() -> SmartBertForSequenceClassification:
    model = make_model(seed=6)
    with torch.no_grad():
        for index in range(4):
            # The sigmoid of what comes out is exactly 1.0 in float32.
            model.get_parameter(f"gates.{index}.decide.bias").fill_(300.0)
    return model


def export(
    model: SmartBertForSequenceClassification,
    rows: list[dict[str, str]],
    folder: Path,
    tokenizer: PreTrainedTokenizerFast | None = None,
) -> Path:
    model.save_pretrained(folder / "ckpt")
    (tokenizer or make_tokenizer()).save_pretrained(folder / "ckpt")
    lines = [json.dumps(row) for row in rows]
    (folder / "ckpt" / "golden_texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    export_package(folder / "ckpt", folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def pairs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": text, "text_pair": pair} for text, pair in zip(SENTENCES, PAIRS, strict=True)]
    return export(two_class_model(), rows, tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def skipping_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(skipping_model(), [{"text": text} for text in SENTENCES], tmp_path_factory.mktemp("skipping"))


@pytest.fixture(scope="module")
def mean_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(make_model(7, "mean"), [{"text": text} for text in SENTENCES], tmp_path_factory.mktemp("mean"))


@pytest.fixture(scope="module")
def learned_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = make_model(8, "learned")
    return export(model, [{"text": text} for text in SENTENCES], tmp_path_factory.mktemp("learned"))


@pytest.fixture(scope="module")
def roberta_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": text} for text in SENTENCES]
    return export(roberta.make_model(), rows, tmp_path_factory.mktemp("roberta"), roberta.make_tokenizer())


def test_two_classes_and_pairs(pairs_dir: Path) -> None:
    encoded = make_tokenizer()(list(SENTENCES), list(PAIRS), truncation=True, max_length=24)
    model = two_class_model()
    expected = [
        paper_answer(model, ids, types)
        for ids, types in zip(encoded["input_ids"], encoded["token_type_ids"], strict=True)
    ]
    clear = [row for row, answer in enumerate(expected) if answer.margin > 1e-4]
    assert len(clear) >= 23
    for batch_size in (1, 24):
        predictions = SmartBert.load(pairs_dir).classify(SENTENCES, text_pairs=PAIRS, batch_size=batch_size)
        for row in clear:
            wanted, got = expected[row], predictions[row]
            assert got.trace.decisions() == (wanted.layers_run, wanted.layers_skipped, wanted.exit_layer)
            np.testing.assert_allclose(got.trace.logits_c, wanted.logits_c, atol=1e-4)
            assert list(got.probabilities) == ["no", "yes"]
    assert len({answer.exit_layer for answer in expected}) > 1


def test_golden_pairs(pairs_dir: Path) -> None:
    lines = (pairs_dir / "golden" / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert {"text": SENTENCES[0], "text_pair": PAIRS[0]} in rows
    assert read_golden(open_package(pairs_dir)).tokens.token_type_ids_bs.any()


def test_model_skips_every_layer(skipping_dir: Path) -> None:
    encoded = make_tokenizer()(list(SENTENCES), truncation=True, max_length=24)
    model = skipping_model()
    for batch_size in (1, 24):
        predictions = SmartBert.load(skipping_dir).classify(SENTENCES, batch_size=batch_size)
        for ids, types, got in zip(encoded["input_ids"], encoded["token_type_ids"], predictions, strict=True):
            assert got.layers_run == () and got.layers_skipped == (1, 2, 3, 4) and got.exit_layer == 4
            np.testing.assert_allclose(got.trace.logits_c, paper_answer(model, ids, types).logits_c, atol=1e-4)


def test_no_skip_overrides_certain_gate(skipping_dir: Path) -> None:
    classifier = SmartBert.load(skipping_dir)
    (never,) = classifier.classify(["Off with her head!"], policy=Policy(no_skip=True, exit_threshold=0.0))
    assert never.layers_run == (1, 2, 3, 4)
    (limited,) = classifier.classify(["Off with her head!"], policy=Policy(max_layers=1))
    assert limited.layers_run == () and limited.exit_layer == 4


OTHERS: dict[str, tuple[Callable[[], SmartBertForSequenceClassification], Callable[[], PreTrainedTokenizerFast]]] = {
    "mean_dir": (partial(make_model, 7, "mean"), make_tokenizer),
    "learned_dir": (partial(make_model, 8, "learned"), make_tokenizer),
    "roberta_dir": (roberta.make_model, roberta.make_tokenizer),
}


@pytest.mark.parametrize("package", OTHERS)
def test_other_heads_and_family(package: str, request: pytest.FixtureRequest) -> None:
    make, tokenizer = OTHERS[package]
    model, folder = make(), request.getfixturevalue(package)
    length = model.config.max_input_length
    encoded = tokenizer()(list(SENTENCES), truncation=True, max_length=length)["input_ids"]
    assert max(len(ids) for ids in encoded) == length
    expected = [paper_answer(model, ids, [0] * len(ids)) for ids in encoded]
    clear = [row for row, answer in enumerate(expected) if answer.margin > 1e-4]
    assert len(clear) >= 22
    for batch_size in (1, 24):
        predictions = SmartBert.load(folder).classify(SENTENCES, batch_size=batch_size)
        for row in clear:
            wanted, got = expected[row], predictions[row]
            assert got.trace.decisions() == (wanted.layers_run, wanted.layers_skipped, wanted.exit_layer)
            np.testing.assert_allclose(got.trace.logits_c, wanted.logits_c, atol=1e-4)
    assert len({answer.exit_layer for answer in expected}) > 1
    assert len({answer.layers_skipped for answer in expected}) > 1


def test_roberta_facts_and_padding(roberta_dir: Path) -> None:
    manifest = open_package(roberta_dir).manifest
    assert (manifest.model.family, manifest.model.layers, manifest.model.max_length) == ("roberta", 3, 28)
    settings = json.loads((roberta_dir / "tokenizer" / "settings.json").read_text(encoding="utf-8"))
    assert (settings["pad_id"], settings["type_ids"]) == (1, False)
    tokens = SmartBert.load(roberta_dir).tokenizer.encode(["Do cats eat bats?", "Down, down, down."])
    theirs = roberta.make_tokenizer()(["Do cats eat bats?", "Down, down, down."], padding=True)["input_ids"]
    assert tokens.input_ids_bs.tolist() == theirs
    assert (tokens.input_ids_bs == 1).any() and not tokens.token_type_ids_bs.any()


@pytest.mark.parametrize(
    ("package", "parts"),
    [("pairs_dir", 13), ("skipping_dir", 13), ("mean_dir", 13), ("learned_dir", 13), ("roberta_dir", 10)],
)
def test_golden_samples_replay(package: str, parts: int, request: pytest.FixtureRequest) -> None:
    opened = open_package(request.getfixturevalue(package))
    sessions = Sessions(opened, opened.manifest.variant())
    report = require_parity(
        verify(sessions, read_golden(opened), opened.manifest.golden.policy, oracle="the recording")
    )
    assert len(report.parts) == parts and [check.decisions.different for check in report.texts] == [(), ()]
