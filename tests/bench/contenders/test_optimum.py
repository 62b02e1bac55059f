"""The contender `optimum`: a plain checkpoint through optimum-onnx matches PyTorch; other checkpoints are refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification

from smartbert.plain_classifier import MeanPooledConfig, MeanPooledForSequenceClassification
from smartbert_bench.contenders.contender import Contender
from smartbert_bench.contenders.package_variants import package_contenders
from smartbert_bench.run import run_bench
from smartbert_bench.settings import BenchSettings
from smartbert_runtime.errors import ConfigError, ExportError, InputError
from smartbert_runtime.package.open import open_package
from smartbert_runtime.text_files.examples import Examples
from tests.conftest import LABELS, LAYERS, SENTENCES, make_encoder_config, make_tokenizer

if importlib.util.find_spec("optimum") is None:
    pytest.skip("optimum-onnx is not installed: pip install '.[incumbent]'", allow_module_level=True)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from smartbert_bench.contenders.optimum import GRAPHS, optimum_contenders
    from smartbert_bench.workers.optimum_worker import load_optimum_runner

SETTINGS = BenchSettings(
    preset="default", providers=("CPUExecutionProvider",), threads=1, repeats=1, batch_sizes=(4,), starts=0
)


def save_plain(folder: Path, **changes: Any) -> Any:
    """A seeded classifier with the tests' labels, as smartbert-train --arm plain --pooling first writes it."""
    torch.manual_seed(3)
    config = make_encoder_config()
    config.id2label = dict(enumerate(LABELS))
    config.label2id = {label: number for number, label in enumerate(LABELS)}
    config.max_input_length = 24
    for name, value in changes.items():
        setattr(config, name, value)
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("plain")
    return folder, save_plain(folder)


@pytest.fixture(scope="module")
def exported(
    plain: tuple[Path, Any], package_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Contender]]:
    """The folder of the graphs, and the contenders that run them."""
    folder = tmp_path_factory.mktemp("optimum")
    return folder, optimum_contenders(plain[0], open_package(package_dir), SETTINGS, folder)


def test_bench_beside_package(
    plain: tuple[Path, Any], exported: tuple[Path, list[Contender]], package_dir: Path
) -> None:
    _, model = plain
    folder, found = exported
    package = open_package(package_dir)
    assert [(contender.name, contender.layers) for contender in found] == [
        ("optimum-fp32", LAYERS),
        ("optimum-int8", LAYERS),
    ]
    for contender in found:
        sizes = {file.name: file.stat().st_size for file in (folder / contender.precision).iterdir()}
        graph, tokenizer = sizes[GRAPHS[contender.precision]], sizes["tokenizer.json"]
        assert graph + tokenizer + sizes["config.json"] < contender.disk_bytes <= sum(sizes.values())
    batch = make_tokenizer()(list(SENTENCES), truncation=True, max_length=24, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = [LABELS[best] for best in model(**batch).logits.argmax(dim=1).tolist()]
    assert len(set(expected)) > 1  # otherwise this test proves nothing
    examples = Examples(
        texts=SENTENCES, pairs=None, labels=tuple(expected), lines=tuple(range(2, 26)), source="alice.tsv"
    )
    contenders = [*package_contenders(package, package.manifest.variants, SETTINGS)[:1], *found]
    report = run_bench(package, contenders, examples, SETTINGS)
    by_name = {row.name: row for row in report.contenders}
    assert by_name["optimum-fp32"].accuracy == 1.0
    assert by_name["optimum-int8"].accuracy >= 0.8
    assert by_name["optimum-fp32"].mean_layers_run == LAYERS
    assert [(ratio.of, ratio.over) for ratio in report.ratios] == [
        ("separate-fp32", "optimum-fp32"),
        ("separate-fp32", "optimum-int8"),
    ]
    assert {"optimum", "optimum-onnx", "transformers", "onnxruntime"} <= report.conditions.versions.keys()


def test_batches_keep_the_order_given(plain: tuple[Path, Any], exported: tuple[Path, list[Contender]]) -> None:
    _, model = plain
    _, (contender, _) = exported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runner = load_optimum_runner(json.loads(json.dumps(contender.worker.spec)), True)
    pairs = SENTENCES[::-1]
    batch = make_tokenizer()(
        list(SENTENCES), list(pairs), truncation=True, max_length=24, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = [LABELS[best] for best in model(**batch).logits.argmax(dim=1).tolist()]
    for batch_size in (1, 5):
        assert runner.classify(SENTENCES, pairs, mode="full depth", batch_size=batch_size) == (expected, None)


def test_mean_pooling_is_refused(package_dir: Path, tmp_path: Path) -> None:
    config = MeanPooledConfig(backbone_config=make_encoder_config().to_dict(), id2label=dict(enumerate(LABELS)))
    MeanPooledForSequenceClassification(config).save_pretrained(tmp_path / "mean")
    with pytest.raises(ConfigError, match="averages all tokens") as caught:
        optimum_contenders(tmp_path / "mean", open_package(package_dir), SETTINGS, tmp_path)
    assert caught.value.hint == "train it with smartbert-train --arm plain --pooling first"


def test_other_checkpoints_are_refused(checkpoint_dir: Path, package_dir: Path, tmp_path: Path) -> None:
    package = open_package(package_dir)
    with pytest.raises(ConfigError, match="holds a SmartBERT, not a plain classifier"):
        optimum_contenders(checkpoint_dir, package, SETTINGS, tmp_path)
    with pytest.raises(InputError, match="nowhere is not a checkpoint"):
        optimum_contenders(tmp_path / "nowhere", package, SETTINGS, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}), encoding="utf-8")
    with pytest.raises(ConfigError, match="holds a 'gpt2' model"):
        optimum_contenders(tmp_path, package, SETTINGS, tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"id2label": {0: "calm", 1: "loud", 2: "shy"}}, "has the labels calm, loud, shy, the package calm, loud, odd"),
        ({"max_input_length": 16}, "truncated to 16 tokens, the package on 24"),
    ],
    ids=["labels", "length"],
)
def test_other_labels_or_length_are_refused(
    package_dir: Path, tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    save_plain(tmp_path / "other", **changes)
    with pytest.raises(ConfigError, match=words):
        optimum_contenders(tmp_path / "other", open_package(package_dir), SETTINGS, tmp_path)


def test_failed_export_is_named(plain: tuple[Path, Any], package_dir: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(plain[0], tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ExportError, match=r"optimum cannot export .*broken"):
        optimum_contenders(broken, open_package(package_dir), SETTINGS, tmp_path)
