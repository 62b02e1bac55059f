"""Tracing: a template takes any module's weights, equal weights stay apart, and what cannot be cut is refused."""

from __future__ import annotations

import logging

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from smartbert_export.graphs.tracing import OPSETS, TWIN_ROWS, Template, make_template
from smartbert_export.library_output import own_logging
from smartbert_runtime.errors import ExportError
from smartbert_runtime.package.manifest import TensorSpec

INPUT = TensorSpec(name="x", dtype="float32", dims=("batch", "sequence", "4"))
OUTPUT = TensorSpec(name="y", dtype="float32", dims=("batch", "sequence", "4"))
EXAMPLE = (torch.zeros(2, 3, 4),)


class TwoLinears(nn.Module):
    """Two square layers, so that a weight and its transpose have one shape."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        for linear in (self.first, self.second):
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.second(torch.tanh(self.first(x))))


class WithUnusedWeight(TwoLinears):
    """A weight that the graph cannot hold, because nothing reads it."""

    def __init__(self) -> None:
        super().__init__(0)
        self.forgotten = nn.Parameter(torch.ones(4))


class Table(nn.Module):
    """A table as large as a vocabulary, and a smaller one that is read at fixed places."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        torch.manual_seed(rows)
        self.words, self.places = nn.Embedding(rows, 4), nn.Embedding(1000, 4)

    def forward(self, ids: Tensor) -> Tensor:
        words, places = self.words(ids), self.places(torch.arange(ids.shape[1]))
        return torch.add(words, places)


@pytest.fixture(scope="module")
def template() -> Template:
    return make_template(TwoLinears(0), EXAMPLE, (INPUT,), (OUTPUT,))


def test_equal_biases_stay_apart(template: Template) -> None:
    graph = template.filled(TwoLinears(0)).graph
    weights = {initializer.name: numpy_helper.to_array(initializer) for initializer in graph.initializer}
    assert {"first.weight", "first.bias", "second.weight", "second.bias"} <= set(weights)
    assert weights["first.bias"].tolist() == weights["second.bias"].tolist() == [0.0] * 4
    read = {name for node in graph.node for name in node.input}
    assert {"first.bias", "second.bias"} <= read


def test_template_takes_other_weights(template: Template) -> None:
    other = TwoLinears(1)
    nn.init.constant_(other.second.bias, 0.25)
    session = onnxruntime.InferenceSession(template.filled(other).SerializeToString())
    x_bs4 = np.linspace(-1.0, 1.0, 40, dtype=np.float32).reshape(5, 2, 4)
    (found,) = session.run(None, {"x": x_bs4})
    with torch.inference_mode():
        expected = other(torch.from_numpy(x_bs4)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    with torch.inference_mode():
        first = TwoLinears(0)(torch.from_numpy(x_bs4)).numpy()
    assert np.abs(found - first).max() > 0.1, "none of the traced module's weights are left"


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_runs(opset: int) -> None:
    module = TwoLinears(2)
    made = make_template(module, EXAMPLE, (INPUT,), (OUTPUT,), opset=opset).filled(module)
    assert {entry.domain: entry.version for entry in made.opset_import}[""] == opset
    x_bs4 = np.linspace(-1.0, 1.0, 24, dtype=np.float32).reshape(2, 3, 4)
    (found,) = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"x": x_bs4})
    with torch.inference_mode():
        np.testing.assert_allclose(found, module(torch.from_numpy(x_bs4)).numpy(), atol=1e-6)


def test_filling_keeps_template(template: Template) -> None:
    before = template.graph.SerializeToString(deterministic=True)
    template.filled(TwoLinears(7))
    assert template.graph.SerializeToString(deterministic=True) == before


def test_tracing_keeps_module() -> None:
    module = TwoLinears(3)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    make_template(module, EXAMPLE, (INPUT,), (OUTPUT,))
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_unused_weight_is_refused() -> None:
    with pytest.raises(ExportError, match="does not hold the weights forgotten as they are") as error:
        make_template(WithUnusedWeight(), EXAMPLE, (INPUT,), (OUTPUT,))
    assert "torch" in error.value.hint


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (TensorSpec(name="y", dtype="float32", dims=("batch", "sequence", "5")), "'4'"),
        (TensorSpec(name="y", dtype="float32", dims=("batch", "3", "4")), "'sequence'"),
        (TensorSpec(name="y", dtype="int64", dims=("batch", "sequence", "4")), "traced y"),
    ],
)
def test_other_interface_is_refused(wanted: TensorSpec, found: str) -> None:
    with pytest.raises(ExportError, match=r"traced y .* where y .* was meant") as error:
        make_template(TwoLinears(0), EXAMPLE, (INPUT,), (wanted,))
    assert found in str(error.value)


@pytest.mark.parametrize("rows", [TWIN_ROWS + 1, 5000])
def test_large_table_is_whole(rows: int) -> None:
    module = Table(rows)
    ids = TensorSpec(name="ids", dtype="int64", dims=("batch", "sequence"))
    made = make_template(module, (torch.zeros(2, 3, dtype=torch.int64),), (ids,), (OUTPUT,)).filled(module)
    weights = {initializer.name: numpy_helper.to_array(initializer) for initializer in made.graph.initializer}
    assert weights["words.weight"].shape == (rows, 4) and weights["places.weight"].shape == (1000, 4)
    ids_bs = np.array([[0, rows - 1, 5, 7], [rows - 2, 1, 1, 999]])
    (found,) = onnxruntime.InferenceSession(made.SerializeToString()).run(None, {"ids": ids_bs})
    with torch.inference_mode():
        np.testing.assert_array_equal(found, module(torch.from_numpy(ids_bs)).numpy())


def test_own_logging_restores_root_logger() -> None:
    root = logging.getLogger()
    before = root.level, root.handlers[:]
    with own_logging():
        root.setLevel(logging.DEBUG)
        root.addHandler(logging.NullHandler())
    assert (root.level, root.handlers) == before
