"""Every combination of layout, precision, target, shape, file format and gates: exported, verified, answering as fp32.

Each row is one export of all layouts in all precisions; what cannot be is refused by name.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export import export_package
from smartbert_export.options import ExportOptions, GraphOptions
from smartbert_export.parts.signatures import LAYOUTS
from smartbert_export.precisions import PRECISIONS
from smartbert_runtime import SmartBert
from smartbert_runtime.errors import ConfigError
from tests.conftest import LAYERS, SENTENCES, save_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:unclosed file.*ort:ResourceWarning")

FIXED = (1, 24)  # one text, for `single`; as long as the model reads, or texts would be cut
# By precision: the least share of sentences that keep fp32's label, and the largest change of a probability.
CLOSE = {"fp32": (1.0, 1e-4), "int8": (0.85, 0.25), "int4": (0.75, 0.75)}


@dataclass(frozen=True)
class Row:
    target: str = "x86-vnni"
    fixed: bool = False
    ort: bool = False
    gates: bool = True
    ranges: bool = True


ROWS = {
    "plain": Row(),
    "x86": Row(target="x86"),
    "arm64": Row(target="arm64"),
    "no ranges": Row(ranges=False),
    "no gates": Row(gates=False),
    "fixed": Row(fixed=True),
    "ort": Row(ort=True),
    "ort, no ranges": Row(ort=True, ranges=False),
    "fixed, ort": Row(fixed=True, ort=True),
    "fixed, ort, no gates": Row(fixed=True, ort=True, gates=False),
}


@pytest.fixture(scope="module", params=list(ROWS.values()), ids=list(ROWS))
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model: SmartBertForSequenceClassification
) -> tuple[Row, Path]:
    """A row and its folder: every variant has passed its parity check, or there would be none."""
    row: Row = request.param
    folder = tmp_path_factory.mktemp("combination")
    save_checkpoint(model, folder / "ckpt", ranges=row.ranges)
    check_file = folder / "check.txt"
    check_file.write_text("\n".join(SENTENCES) + "\n", encoding="utf-8")
    graphs = GraphOptions(
        layouts=LAYOUTS,
        precisions=PRECISIONS,
        target=row.target,
        fixed_shape=FIXED if row.fixed else None,
        ort_format=row.ort,
    )
    options = ExportOptions(graphs=graphs, gates=row.gates, check_file=check_file)
    export_package(folder / "ckpt", folder / "out", options)
    return row, folder / "out"


def probabilities(folder: Path, layout: str, precision: str, batch_size: int = 5) -> np.ndarray:
    with SmartBert.load(folder, layout=layout, precision=precision, threads=1) as model:
        predictions = model.classify(SENTENCES, batch_size=batch_size)
    return np.array([list(prediction.probabilities.values()) for prediction in predictions])


def test_answers_as_fp32(exported: tuple[Row, Path]) -> None:
    _, folder = exported
    exact = probabilities(folder, "separate", "fp32")
    for layout in LAYOUTS:
        for precision in PRECISIONS:
            found = probabilities(folder, layout, precision)
            share, largest = CLOSE[precision]
            same = found.argmax(axis=1) == exact.argmax(axis=1)
            assert same.mean() >= share, (layout, precision)
            assert np.median(np.abs(found - exact).max(axis=1)) < largest, (layout, precision)


def test_alone_as_in_a_batch(exported: tuple[Row, Path]) -> None:
    _, folder = exported
    for layout in ("separate", "fused"):
        alone, together = (probabilities(folder, layout, "int8", batch_size) for batch_size in (1, len(SENTENCES)))
        np.testing.assert_allclose(alone, together, atol=1e-5, rtol=0)


def test_int8_is_fused_in_every_layout(exported: tuple[Row, Path], tmp_path: Path) -> None:
    """What onnxruntime makes of it: a product for each weight, and no weight that is made float again."""
    row, folder = exported
    if row.ort:
        found = (folder / "graphs" / "required_operators.config").read_text(encoding="utf-8")
        assert ("QGemm" in found) == row.ranges and ("MatMulIntegerToFloat" in found) == (not row.ranges)
        assert "DequantizeLinear" not in found
        return
    for name, layers in (("layer_02", 1), ("block_02", 1), ("model", LAYERS)):
        operators = loaded_operators(folder / "graphs" / f"{name}.int8.onnx", tmp_path)
        products = operators["QGemm"] + operators["MatMulIntegerToFloat"]
        heads = {"layer_02": 0, "block_02": 1 if row.gates else 0, "model": LAYERS - 1 if row.gates else 0}[name]
        assert products == 6 * layers + heads, name
        assert operators["QGemm"] == (products if row.ranges else 0) and operators["DequantizeLinear"] == 0


def loaded_operators(file: Path, folder: Path) -> Counter[str]:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(folder / "loaded.onnx"), 3
    onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    found: Counter[str] = Counter()
    graphs = [onnx.load(folder / "loaded.onnx").graph]
    while graphs:
        for node in graphs.pop().node:
            found[node.op_type] += 1
            graphs += [entry.g for entry in node.attribute if entry.HasField("g")]
    return found


def test_single_takes_one_text_a_call() -> None:
    with pytest.raises(ConfigError, match="'single' takes one text a call"):
        GraphOptions(layouts=("single",), fixed_shape=(2, 24))
