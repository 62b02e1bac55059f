"""plain_classifier.py: both plain classifiers, what they read, what they save, and what can start from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

from smartbert.checkpoint_folder import load_classifier
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import MeanPooledForSequenceClassification, PlainClassifier
from smartbert.trained_model import backbone_config, input_limit, label_names, saved_model
from smartbert_runtime.errors import ConfigError, InputError
from tests.conftest import LABELS, LAYERS, make_tokenizer
from tests.smartbert.conftest import Batch

NAMES: dict[str, Any] = {
    "id2label": dict(enumerate(LABELS)),
    "label2id": {label: number for number, label in enumerate(LABELS)},
}


def make_plain(encoder: Path, pooling: str, **settings: int) -> PlainClassifier:
    """A plain classifier on the tiny encoder, its head seeded, in evaluation mode."""
    model = PlainClassifier.from_backbone(
        str(encoder), pooling=pooling, seed=3, max_input_length=24, **settings, **NAMES
    )
    return model.eval()


@torch.no_grad()
def logits_of(model: PlainClassifier, batch: Batch) -> torch.Tensor:
    return model.logits(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])


@torch.no_grad()
def test_mean_is_over_real_tokens(encoder_dir: Path, batch: Batch) -> None:
    model = make_plain(encoder_dir, "mean")
    classifier = model.classifier
    assert isinstance(classifier, MeanPooledForSequenceClassification)
    answers_bc = logits_of(model, batch)
    for row in (0, 7, 20):
        length = int(batch["attention_mask"][row].sum())
        hidden_sh = classifier.backbone(input_ids=batch["input_ids"][row : row + 1, :length]).last_hidden_state[0]
        alone_c = classifier.classify(hidden_sh.mean(dim=0))
        torch.testing.assert_close(answers_bc[row], alone_c, rtol=0, atol=1e-5)


def test_first_is_the_familys_own_class(encoder_dir: Path, batch: Batch, tmp_path: Path) -> None:
    model = make_plain(encoder_dir, "first")
    saved_model(model).save_pretrained(tmp_path)
    own = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        theirs_bc = own(**{name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}).logits
    torch.testing.assert_close(logits_of(model, batch), theirs_bc)
    assert own.config.id2label == dict(enumerate(LABELS))


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_saved_classifier_answers_as_before(encoder_dir: Path, batch: Batch, tmp_path: Path, pooling: str) -> None:
    model = make_plain(encoder_dir, pooling)
    saved_model(model).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    loaded, tokenizer = load_classifier(tmp_path)
    assert isinstance(loaded, PlainClassifier)
    assert loaded.pooling == pooling
    assert (label_names(loaded), input_limit(loaded, tokenizer)) == (LABELS, 24)
    torch.testing.assert_close(logits_of(loaded, batch), logits_of(model, batch))
    assert type(AutoModelForSequenceClassification.from_pretrained(tmp_path)) is type(model.classifier)


def test_full_pass(encoder_dir: Path, batch: Batch) -> None:
    model = make_plain(encoder_dir, "mean")
    run = model.full_pass(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
    assert run.skip_logits_bl.shape == (len(batch["labels"]), LAYERS)
    assert bool((run.skip_logits_bl == -torch.inf).all())
    assert bool(run.logits_blc[:, :-1].isnan().all())
    torch.testing.assert_close(run.logits_blc[:, -1], logits_of(model, batch))


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_keep_layers(encoder_dir: Path, pooling: str) -> None:
    whole, cut = make_plain(encoder_dir, pooling), make_plain(encoder_dir, pooling, keep_layers=2)
    assert backbone_config(cut)["num_hidden_layers"] == 2
    weights = whole.backbone.state_dict()
    kept = {name: weight for name, weight in cut.backbone.state_dict().items() if "pooler" not in name}
    assert len(kept) < len(weights)
    assert all(torch.equal(weight, weights[name]) for name, weight in kept.items())


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_smartbert_from_plain_checkpoint(encoder_dir: Path, tmp_path: Path, pooling: str) -> None:
    model = make_plain(encoder_dir, pooling)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.mul_(1.5)  # not the encoder's weights any more
    saved_model(model).save_pretrained(tmp_path)
    smart = SmartBertForSequenceClassification.from_backbone(str(tmp_path), max_input_length=24, **NAMES)
    weights = model.backbone.state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in smart.backbone.state_dict().items())


@pytest.mark.parametrize("pooling", ["mean", "first"])
@pytest.mark.parametrize("start", ["smartbert", "mean", "first"])
def test_plain_from_any_checkpoint(encoder_dir: Path, tmp_path: Path, start: str, pooling: str) -> None:
    """With a new classifier, also where the start has other labels."""
    if start == "smartbert":
        trained: torch.nn.Module = SmartBertForSequenceClassification.from_backbone(
            str(encoder_dir), max_input_length=24, **NAMES
        )
    else:
        trained = saved_model(make_plain(encoder_dir, start))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.mul_(1.5)  # not the encoder's weights any more
    trained.save_pretrained(tmp_path)  # type: ignore[operator]
    two: dict[str, Any] = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}
    plain = PlainClassifier.from_backbone(str(tmp_path), pooling=pooling, max_input_length=24, **two)
    found = plain.backbone.state_dict()
    wanted = (trained.bert if start == "first" else trained.backbone).state_dict()  # type: ignore[union-attr]
    shared = [name for name in found if name in wanted and not name.startswith("pooler.")]
    assert len(shared) > 60 and all(torch.equal(found[name], wanted[name]) for name in shared)
    ids = torch.tensor([[2, 9, 3]])
    assert plain.logits(ids, torch.ones_like(ids), None).shape == (1, 2)


@pytest.mark.parametrize("part", ["gates.", "exits.0.", "backbone.encoder.layer.1."])
def test_missing_weights_are_refused(encoder_dir: Path, tmp_path: Path, part: str) -> None:
    model = SmartBertForSequenceClassification.from_backbone(str(encoder_dir), max_input_length=24, **NAMES)
    model.save_pretrained(tmp_path)
    weights = {name: weight for name, weight in load_file(tmp_path / "model.safetensors").items() if part not in name}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConfigError, match=f"lacks [0-9]+ weights, such as {part}"):
        load_classifier(tmp_path)


def test_encoder_without_classifier(encoder_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"lacks [0-9]+ weights"):
        load_classifier(encoder_dir)


@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_unusable_encoders(encoder_dir: Path, pooling: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"5 layers cannot be kept: .* has 4"):
        make_plain(encoder_dir, pooling, keep_layers=5)
    with pytest.raises(ConfigError, match="from 2 to 32 tokens"):
        PlainClassifier.from_backbone(str(encoder_dir), pooling=pooling, max_input_length=33, **NAMES)
    with pytest.raises(ConfigError, match="cannot be loaded"):
        PlainClassifier.from_backbone(str(tmp_path / "nowhere"), pooling=pooling, **NAMES)


def test_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a checkpoint"):
        load_classifier(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    with pytest.raises(InputError, match="holds a 'gpt2' model"):
        load_classifier(tmp_path)
