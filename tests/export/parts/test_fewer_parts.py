"""Models with fewer parts: checkpoints without gates, and plain fine-tuned classifiers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from transformers import (
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaForSequenceClassification,
)
from typer.testing import CliRunner

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import MeanPooledConfig, MeanPooledForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_export.cli.export import export
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_export.parity.against_checkpoint import record_checkpoint
from smartbert_export.source_checkpoint import open_checkpoint
from smartbert_runtime import Policy, SmartBert
from smartbert_runtime.errors import ConfigError, ExportError
from smartbert_runtime.package.manifest import Manifest
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.verify import require_parity, verify
from tests import roberta
from tests.conftest import EVERY_VARIANT, LABELS, SENTENCES, make_encoder_config, make_tokenizer

NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {label: number for number, label in enumerate(LABELS)}}


def save(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    lines = [json.dumps({"text": text}) for text in SENTENCES]
    (folder / "golden_texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def bert(folder: Path) -> Path:
    config = make_encoder_config()
    config.update(NAMES)
    return save(folder, BertForSequenceClassification(config), make_tokenizer())


def roberta_classifier(folder: Path) -> Path:
    tokenizer = roberta.make_tokenizer()
    config = roberta.make_config(len(tokenizer))
    config.update(NAMES)
    return save(folder, RobertaForSequenceClassification(config), tokenizer)


def mean_pooled(folder: Path) -> Path:
    config = MeanPooledConfig(backbone_config=make_encoder_config().to_dict(), max_input_length=24, **NAMES)
    return save(folder, MeanPooledForSequenceClassification(config), make_tokenizer())


def export_every_variant(checkpoint: Path, output: Path) -> None:
    """With few texts to decide what is quantized: one by one they are most of an export's time."""
    check_file = output.parent / "check.txt"
    check_file.write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    export_package(checkpoint, output, ExportOptions(graphs=EVERY_VARIANT.graphs, check_file=check_file))


@pytest.fixture(scope="module", params=[bert, roberta_classifier, mean_pooled])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint, and its package with every layout in every precision."""
    torch.manual_seed(3)
    make: Callable[[Path], Path] = request.param
    folder = tmp_path_factory.mktemp("plain")
    checkpoint = make(folder / "ckpt")
    export_every_variant(checkpoint, folder / "out")
    return checkpoint, folder / "out"


@pytest.fixture(scope="module")
def gateless(model: SmartBertForSequenceClassification, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """As the arms deebert and pabee train it: the tiny model's heads, without its gates."""
    folder = tmp_path_factory.mktemp("gateless")
    config = copy.deepcopy(model.config)
    config.gates = False
    deebert = SmartBertForSequenceClassification(config)
    weights = {name: weight for name, weight in model.state_dict().items() if not name.startswith("gates.")}
    deebert.load_state_dict(weights)
    checkpoint = save(folder / "ckpt", deebert, make_tokenizer())
    export_every_variant(checkpoint, folder / "out")
    return checkpoint, folder / "out"


def parts(manifest: Manifest, variant: str) -> list[str]:
    return [component.name for component in manifest.in_variant(variant)]


@pytest.mark.parametrize("layout", ["separate", "fused", "single"])
def test_plain_matches_transformers(plain: tuple[Path, Path], layout: str) -> None:
    checkpoint, package = plain
    original = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    loaded = SmartBert.load(package, layout=layout, precision="fp32")
    for batch_size in (1, 32):
        answers = loaded.classify(SENTENCES, batch_size=batch_size)
        for text, answer in zip(SENTENCES, answers, strict=True):
            tokens = loaded.tokenizer.encode([text])
            feeds = {name: torch.from_numpy(array) for name, array in tokens.feeds().items()}
            with torch.inference_mode():
                logits_c = original(**feeds).logits[0].numpy()
            np.testing.assert_allclose(answer.trace.logits_c, logits_c, atol=1e-5)
            assert answer.label == LABELS[logits_c.argmax()]
            assert answer.layers_run == tuple(range(1, loaded.package.manifest.model.layers + 1))
            assert (answer.layers_skipped, answer.exit_layer) == ((), len(answer.layers_run))


def test_plain_parts(plain: tuple[Path, Path]) -> None:
    manifest = open_package(plain[1]).manifest
    layers = range(1, manifest.model.layers + 1)
    assert not manifest.model.gates
    assert not manifest.model.early_exits
    assert parts(manifest, "separate-fp32") == [
        "embeddings",
        *(f"layer_{layer:02d}" for layer in layers),
        f"exit_{layers[-1]:02d}",
    ]
    assert parts(manifest, "fused-int8") == ["embeddings", *(f"block_{layer:02d}" for layer in layers)]
    assert parts(manifest, "single-int4") == ["model"]
    assert [spec.name for spec in manifest.component("block_01").outputs] == ["hidden_next"]


def test_plain_is_always_full_depth(plain: tuple[Path, Path]) -> None:
    manifest = open_package(plain[1]).manifest
    eager = Policy(skip_threshold=0.0, exit_threshold=1.0)
    for variant in manifest.variants:
        loaded = SmartBert.load(plain[1], layout=variant.layout, precision=variant.precision)
        own, eager_ones = (loaded.classify(SENTENCES[:5], policy=policy) for policy in (None, eager))
        assert [answer.trace.decisions() for answer in own] == [answer.trace.decisions() for answer in eager_ones]
        assert {answer.exit_layer for answer in eager_ones} == {manifest.model.layers}


def test_plain_summary_and_license(plain: tuple[Path, Path], tmp_path: Path) -> None:
    sentence = "every text runs all"
    assert sentence in (plain[1] / "SUMMARY.md").read_text(encoding="utf-8")
    assert "- default policy: run every layer" in (plain[1] / "SUMMARY.md").read_text(encoding="utf-8")
    app = typer.Typer()
    app.command()(export)
    result = CliRunner().invoke(app, [str(plain[0]), str(tmp_path / "out"), "--license", "apache-2.0"])
    assert result.exit_code == 0
    assert sentence in result.output
    assert "- license: apache-2.0" in (tmp_path / "out" / "SUMMARY.md").read_text(encoding="utf-8")
    assert open_package(tmp_path / "out").manifest.provenance.options["license"] == "apache-2.0"
    assert "- license: not given" in (plain[1] / "SUMMARY.md").read_text(encoding="utf-8")


def test_plain_refuses_max_layers(plain: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match="no head but the last"):
        SmartBert.load(plain[1]).classify(SENTENCES[:1], policy=Policy(max_layers=2))


@pytest.mark.parametrize("layout", ["separate", "fused", "single"])
def test_gateless_matches_pytorch(gateless: tuple[Path, Path], layout: str) -> None:
    checkpoint, package = gateless
    reference = open_checkpoint(checkpoint).model
    loaded = SmartBert.load(package, layout=layout, precision="fp32")
    policy = loaded.policy()
    assert policy.no_skip
    tokens = loaded.tokenizer.encode(SENTENCES)
    expected = trace_rows(reference, tokens, policy)
    assert len({trace.exit_layer for trace in expected}) > 2
    for given in (None, Policy(skip_threshold=0.0, exit_threshold=policy.exit_threshold)):
        for batch_size in (1, 32):
            answers = loaded.classify(SENTENCES, batch_size=batch_size, policy=given)
            assert [answer.trace.decisions() for answer in answers] == [trace.decisions() for trace in expected]
            for answer, trace in zip(answers, expected, strict=True):
                np.testing.assert_allclose(answer.trace.logits_c, trace.logits_c, atol=1e-5)


def test_gateless_parts(gateless: tuple[Path, Path]) -> None:
    manifest = open_package(gateless[1]).manifest
    assert not manifest.model.gates
    assert manifest.model.early_exits
    assert parts(manifest, "fused-fp32") == ["embeddings", *(f"block_{layer:02d}" for layer in (1, 2, 3, 4))]
    assert parts(manifest, "separate-fp32")[1:3] == ["layer_01", "exit_01"]
    assert "skips no layer" in (gateless[1] / "SUMMARY.md").read_text(encoding="utf-8")
    assert SmartBert.load(gateless[1]).classify(SENTENCES[:1], policy=Policy(max_layers=1))[0].exit_layer == 1


def test_gates_left_out(checkpoint_dir: Path, model: SmartBertForSequenceClassification, tmp_path: Path) -> None:
    package = tmp_path / "out"
    options = ExportOptions(graphs=GraphOptions(layouts=("fused",)), gates=False)
    assert export_package(checkpoint_dir, package, options).skipped is None
    opened = open_package(package)
    assert opened.manifest.provenance.options["gates"] is False
    assert "- left out: the skipping gates" in (package / "SUMMARY.md").read_text(encoding="utf-8")
    assert parts(opened.manifest, "fused-fp32") == ["embeddings", *(f"block_{layer:02d}" for layer in (1, 2, 3, 4))]
    loaded = SmartBert.load(package)
    policy = loaded.policy()
    assert policy.no_skip
    tokens = loaded.tokenizer.encode(SENTENCES)
    # The model's own gates skip many layers, and are left out.
    expected = trace_rows(model, tokens, policy)
    assert any(trace.layers_skipped for trace in trace_rows(model, tokens, replace(policy, no_skip=False)))
    answers = loaded.classify(SENTENCES)
    assert [answer.trace.decisions() for answer in answers] == [trace.decisions() for trace in expected]
    golden = record_checkpoint(checkpoint_dir, opened, None, policy)
    assert require_parity(verify(loaded.sessions, golden, policy, oracle="PyTorch")).parts


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "for multi_label_classification"),
        ({"num_labels": 1}, "for regression"),
        ({"is_decoder": True}, "is_decoder True"),
    ],
)
def test_other_problem_type_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    config = make_encoder_config()
    config.update(change)
    save(tmp_path / "ckpt", BertForSequenceClassification(config), make_tokenizer())
    with pytest.raises(ExportError, match=message):
        export_package(tmp_path / "ckpt", tmp_path / "out", ExportOptions())
    assert not (tmp_path / "out").exists()


def test_token_classifier_is_refused(tmp_path: Path) -> None:
    folder = bert(tmp_path / "ckpt")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["architectures"] = ["BertForTokenClassification"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ExportError, match="BertForTokenClassification, which does not classify texts"):
        export_package(folder, tmp_path / "out", ExportOptions())
