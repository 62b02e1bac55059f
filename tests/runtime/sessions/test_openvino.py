"""A second real provider, OpenVINO, in an environment of its own: the CPU's decisions, and where the nodes ran."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import smartbert_runtime
from smartbert_runtime import SmartBert
from tests.conftest import SENTENCES

OPENVINO = "OpenVINOExecutionProvider"
CPU = "CPUExecutionProvider"

pytestmark = pytest.mark.skipif(
    "OPENVINO_PYTHON" not in os.environ, reason="needs an environment with onnxruntime-openvino: make test-openvino"
)

PROGRAM = """
import json, sys
from smartbert_runtime import SmartBert
folder, texts, providers, precision = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4]
model = SmartBert.load(folder, providers=providers, threads=1, layout="separate", precision=precision)
answers = model.classify(texts)
print(json.dumps({
    "decisions": [[list(a.layers_run), list(a.layers_skipped), a.exit_layer] for a in answers],
    "scores": [a.score for a in answers],
    "placements": model.sessions.placements(),
}))
"""


def run_openvino(folder: Path, *providers: str, precision: str = "fp32") -> dict[str, Any]:
    """The package's answers from the other environment, where only the runtime is on the path."""
    run = subprocess.run(
        [
            os.environ["OPENVINO_PYTHON"],
            "-c",
            PROGRAM,
            str(folder),
            json.dumps(SENTENCES),
            json.dumps(providers),
            precision,
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(smartbert_runtime.__file__).parents[1])},
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


@pytest.mark.parametrize(
    ("providers", "taken"),
    [
        ([OPENVINO, CPU], {"embeddings", "gate", "layer", "exit"}),
        ([f"layer={OPENVINO}"], {"layer"}),
        ([CPU], set()),
    ],
)
def test_openvino_matches_cpu(package_dir: Path, providers: list[str], taken: set[str]) -> None:
    found = run_openvino(package_dir, *providers)
    expected = SmartBert.load(package_dir).classify(SENTENCES)
    assert found["decisions"] == [[list(a.layers_run), list(a.layers_skipped), a.exit_layer] for a in expected]
    assert found["scores"] == pytest.approx([answer.score for answer in expected], abs=1e-4)
    assert found["placements"]
    for part, nodes in found["placements"].items():
        if part.split("_")[0] in taken:
            assert nodes.get(OPENVINO, 0) > 0.9 * sum(nodes.values()), (part, nodes)
        else:
            assert list(nodes) == [CPU], (part, nodes)


def test_openvino_runs_static_int8(layouts_dir: Path) -> None:
    """It reads the quantized parts whole, and decides as the CPU but for a rounding of its own."""
    found = run_openvino(layouts_dir, OPENVINO, CPU, precision="int8")
    with SmartBert.load(layouts_dir, layout="separate", precision="int8", threads=1) as model:
        expected = model.classify(SENTENCES)
    same = [
        one == [list(a.layers_run), list(a.layers_skipped), a.exit_layer]
        for one, a in zip(found["decisions"], expected, strict=True)
    ]
    assert sum(same) >= 0.9 * len(SENTENCES)
    assert found["scores"] == pytest.approx([answer.score for answer in expected], abs=0.1)
    for part, nodes in found["placements"].items():
        assert nodes.get(OPENVINO, 0) > 0.9 * sum(nodes.values()), (part, nodes)
