"""model.onnx in another language gives Python's answers: Node's onnxruntime, from npm, given token ids.

Skipped where Node or npm is missing or the package cannot be had; no other test reaches a network.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_export import export_package
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_runtime import Policy, SmartBert
from tests.conftest import SENTENCES

# Its npm package brings the CPU's libraries for linux-x64 and -arm64, macOS and Windows: no install script is needed,
# which would fetch those for CUDA.
PACKAGE = "onnxruntime-node@1.30.0"
SECONDS = 180
# (skip threshold, exit threshold); negative: the graph's own.
THRESHOLDS = [(-1.0, -1.0), (0.3, 0.9), (1.0, 0.0), (0.8, -1.0)]

SCRIPT = """
const fs = require("node:fs");
const ort = require("onnxruntime-node");

async function main(model, rows) {
  const session = await ort.InferenceSession.create(model);
  const answers = [];
  for (const row of JSON.parse(fs.readFileSync(rows, "utf8"))) {
    const feeds = {};
    for (const name of ["input_ids", "attention_mask", "token_type_ids"])
      feeds[name] = new ort.Tensor("int64", BigInt64Array.from(row[name], BigInt), [1, row[name].length]);
    for (const name of ["skip_threshold", "exit_threshold"])
      feeds[name] = new ort.Tensor("float32", Float32Array.of(row[name]), []);
    const found = await session.run(feeds);
    answers.push({
      logits: Array.from(found.logits.data),
      exit_layer: Number(found.exit_layer.data[0]),
      layers_run: Array.from(found.layers_run.data, Number),
    });
  }
  process.stdout.write(JSON.stringify(answers));
}
main(process.argv[2], process.argv[3]);
"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """As a program without this project's runtime sees it."""

    logits: list[float]
    exit_layer: int
    layers_run: list[int]


@pytest.fixture(scope="module")
def node_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which Node finds onnxruntime."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    (folder / "run.js").write_text(SCRIPT, encoding="utf-8")
    (folder / "package.json").write_text('{"private": true}', encoding="utf-8")
    install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=0"]
    try:
        done = subprocess.run(
            [*install, PACKAGE], cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm did not bring {PACKAGE} within {SECONDS} s")
    if done.returncode:
        pytest.skip(f"npm cannot bring {PACKAGE}: {done.stderr.strip().splitlines()[:1]}")
    loads = subprocess.run(
        [node, "-e", 'require("onnxruntime-node")'],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    if loads.returncode:
        pytest.skip(f"onnxruntime-node has no library for this machine: {loads.stderr.strip().splitlines()[-1:]}")
    yield folder
    shutil.rmtree(folder)  # 290 MB, which pytest would keep for three runs


@pytest.fixture(scope="module")
def single_dir(tmp_path_factory: pytest.TempPathFactory, checkpoint_dir: Path) -> Path:
    """A package of nothing but model.onnx."""
    folder = tmp_path_factory.mktemp("single") / "out"
    export_package(checkpoint_dir, folder, ExportOptions(graphs=GraphOptions(layouts=("single",))))
    return folder


def ask_node(folder: Path, model: Path, rows: list[dict[str, object]]) -> list[Answer]:
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    done = subprocess.run(
        ["node", "run.js", str(model), "rows.json"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [Answer(**answer) for answer in json.loads(done.stdout)]


def node_rows(opened: SmartBert) -> list[dict[str, object]]:
    """Every sentence's token ids under every pair of thresholds."""
    tokens = opened.tokenizer.encode(SENTENCES)
    rows: list[dict[str, object]] = []
    for skip_threshold, exit_threshold in THRESHOLDS:
        for row in range(len(SENTENCES)):
            ids = {name: array[0].tolist() for name, array in tokens.rows([row]).feeds().items()}
            rows.append({**ids, "skip_threshold": skip_threshold, "exit_threshold": exit_threshold})
    return rows


def test_node_matches_python(node_dir: Path, single_dir: Path, model: SmartBertForSequenceClassification) -> None:
    opened = SmartBert.load(single_dir)
    answers = ask_node(node_dir, single_dir / "graphs" / "model.onnx", node_rows(opened))
    assert len(answers) == len(THRESHOLDS) * len(SENTENCES)
    tokens = opened.tokenizer.encode(SENTENCES)
    paths = set()
    for number, (skip_threshold, exit_threshold) in enumerate(THRESHOLDS):
        policy = Policy(
            skip_threshold=skip_threshold if skip_threshold >= 0 else model.config.skip_threshold,
            exit_threshold=exit_threshold if exit_threshold >= 0 else model.config.exit_threshold,
        )
        runtime = opened.classify(SENTENCES, policy=policy)
        pytorch = trace_rows(model, tokens, policy)
        found = answers[number * len(SENTENCES) : (number + 1) * len(SENTENCES)]
        clear = [row for row, trace in enumerate(pytorch) if trace.margin(policy) > 1e-4]
        assert len(clear) >= 23
        for row in clear:
            layers_run = tuple(layer for layer, ran in enumerate(found[row].layers_run, start=1) if ran)
            for wanted in (pytorch[row], runtime[row].trace):
                assert (layers_run, found[row].exit_layer) == (wanted.layers_run, wanted.exit_layer), SENTENCES[row]
                np.testing.assert_allclose(found[row].logits, wanted.logits_c, atol=1e-4)
            paths.add((layers_run, found[row].exit_layer))
    assert len(paths) >= 8, "the sentences take many paths"
