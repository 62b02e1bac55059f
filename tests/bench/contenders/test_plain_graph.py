"""plain_rival: one graph a precision, asked in its own process, answers as the package does at full depth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from smartbert_bench.conditions import BenchSettings
from smartbert_bench.contenders.contender import Contender
from smartbert_bench.contenders.plain_graph import plain_contenders
from smartbert_bench.workers.graph_worker import open_plain_runner
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.package import export_package
from smartbert_runtime import SmartBert
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.package.open import open_package
from tests.conftest import SENTENCES

SETTINGS = BenchSettings(preset="default", providers=("CPUExecutionProvider",), threads=1)


def as_told(contender: Contender) -> dict[str, object]:
    """The spec as it arrives in the process."""
    told: dict[str, object] = json.loads(json.dumps(contender.worker.spec))
    return told


def test_there_is_one_for_each_precision(variants_dir: Path, tmp_path: Path) -> None:
    package = open_package(variants_dir)
    found = plain_contenders(package, package.manifest.variants, SETTINGS, tmp_path)
    assert {contender.name for contender in found} == {"plain-fp32", "plain-int8", "plain-int4"}
    tokenizer = package.manifest.tokenizer
    for contender in found:
        graph = (tmp_path / f"plain.{contender.precision}.onnx").stat().st_size
        assert contender.disk_bytes == graph + tokenizer.tokenizer.bytes + tokenizer.settings.bytes
        model = SmartBert.load(variants_dir, layout="separate", precision=contender.precision)
        expected = [answer.label for answer in model.classify(SENTENCES, policy=model.policy("full-depth"))]
        runner = open_plain_runner(as_told(contender), True)
        for batch_size in (1, 7):
            labels, layers_run = runner.answer(SENTENCES, None, way="plain", batch_size=batch_size)
            assert (labels, layers_run) == (expected, None)


def test_graphs_of_one_shape_are_filled_up(checkpoint_dir: Path, tmp_path: Path) -> None:
    options = ExportOptions(graphs=GraphOptions(layouts=("fused",), fixed_shape=(2, 24)))
    package_dir = tmp_path / "out"
    export_package(checkpoint_dir, package_dir, options)
    package = open_package(package_dir)
    (contender,) = plain_contenders(package, package.manifest.variants, SETTINGS, tmp_path)
    model = SmartBert.load(package_dir)
    expected = [answer.label for answer in model.classify(SENTENCES, policy=model.policy("full-depth"))]
    runner = open_plain_runner(as_told(contender), True)
    assert runner.answer(SENTENCES, None, way="plain", batch_size=5) == (expected, None)


def test_a_graph_that_decides_has_no_plain_one(variants_dir: Path, tmp_path: Path) -> None:
    package = open_package(variants_dir)
    single = package.manifest.variant("single", "fp32")
    alone = replace(package, manifest=replace(package.manifest, variants=(single,)))
    with pytest.raises(ConfigError, match="'separate' or 'fused'"):
        plain_contenders(alone, [single], SETTINGS, tmp_path)
