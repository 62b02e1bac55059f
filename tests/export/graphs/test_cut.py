"""The graphs of the parts: interface of the contract, any batch and length, the model's weights, no source paths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.graphs.cut import cut_parts
from smartbert_export.parts.modules import part_module
from smartbert_export.parts.signatures import parts
from tests.conftest import make_model
from tests.export.reporters import Recorder

FLOAT, INT64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
Interface = list[tuple[str, int, tuple[str | int, ...]]]
IDS: Interface = [(name, INT64, ("batch", "sequence")) for name in ("input_ids", "attention_mask", "token_type_ids")]
STATE: Interface = [("hidden", FLOAT, ("batch", "sequence", 32)), ("mask", FLOAT, ("batch", 1, 1, "sequence"))]

# DESIGN.md, "Part names, inputs -> outputs", with h = 32 and c = 3.
CONTRACT: dict[str, tuple[Interface, Interface]] = {
    "embeddings": (IDS, STATE),
    "gate": (STATE, [("skip_logit", FLOAT, ("batch",))]),
    "layer": (STATE, [("hidden_next", FLOAT, ("batch", "sequence", 32))]),
    "exit": (STATE, [("logits", FLOAT, ("batch", 3))]),
    "block": (
        STATE,
        [
            ("hidden_next", FLOAT, ("batch", "sequence", 32)),
            ("logits", FLOAT, ("batch", 3)),
            ("skip_logit", FLOAT, ("batch",)),
        ],
    ),
    "model": (
        [
            *[(name, INT64, (1, "sequence")) for name, _, _ in IDS],
            ("skip_threshold", FLOAT, ()),
            ("exit_threshold", FLOAT, ()),
        ],
        [("logits", FLOAT, (1, 3)), ("exit_layer", INT64, ()), ("layers_run", INT64, (4,))],
    ),
}
NAMES = ["embeddings", *[f"{role}_0{layer}" for layer in (1, 2, 3, 4) for role in ("gate", "layer", "exit")]]


def load(package: Path, part: str) -> onnx.ModelProto:
    return onnx.load_model_from_string((package / "graphs" / f"{part}.onnx").read_bytes())


def interface(values: list[onnx.ValueInfoProto]) -> Interface:
    return [
        (
            value.name,
            value.type.tensor_type.elem_type,
            tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim),
        )
        for value in values
    ]


def test_one_graph_per_part(package_dir: Path) -> None:
    assert sorted(file.name for file in (package_dir / "graphs").iterdir()) == sorted(f"{n}.onnx" for n in NAMES)


def test_cut_keeps_model(package_dir: Path, tmp_path: Path) -> None:
    model, reporter = make_model(), Recorder()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    cut = cut_parts(model, tmp_path, ("separate",), reporter=reporter)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for part in parts(model.config, "separate"):
        exported = (package_dir / "graphs" / f"{part.name}.onnx").read_bytes()
        assert cut.file(part).read_bytes() == exported, "whether weights are released changes no graph"
    assert reporter.steps == ["tracing gate", "tracing layer", "tracing exit", "tracing embeddings"]


def test_released_weights(tmp_path: Path) -> None:
    model = make_model()
    cut = cut_parts(model, tmp_path, ("separate",), release_weights=True)
    assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}
    assert cut.config.layers == 4


@pytest.mark.parametrize("part", NAMES)
def test_interface_is_the_contract(package_dir: Path, part: str) -> None:
    graph = load(package_dir, part).graph
    inputs, outputs = CONTRACT[part.split("_")[0]]
    assert interface(list(graph.input)) == inputs
    assert interface(list(graph.output)) == outputs


@pytest.mark.parametrize("suffix", ["", ".int8", ".int4"])
def test_interface_of_every_variant(variants_dir: Path, suffix: str) -> None:
    found = (file.name.removesuffix(f"{suffix}.onnx") for file in (variants_dir / "graphs").glob(f"*{suffix}.onnx"))
    names = sorted(name for name in found if "." not in name)
    assert {"model", "embeddings", "gate_01", "exit_04"} <= set(names)
    for part in names:
        inputs, outputs = CONTRACT[part.split("_")[0]]
        graph = onnx.load(variants_dir / "graphs" / f"{part}{suffix}.onnx", load_external_data=False).graph
        assert interface(list(graph.input)) == inputs, part
        # No gate follows the last layer.
        assert interface(list(graph.output)) == (outputs[:2] if part == "block_04" else outputs), part


@pytest.mark.parametrize("part", ["block_02", "block_04"])
@pytest.mark.parametrize(("batch", "sequence"), [(1, 1), (1, 24), (5, 7)])
def test_block_matches_pytorch(
    variants_dir: Path, model: SmartBertForSequenceClassification, part: str, batch: int, sequence: int
) -> None:
    hidden_bsh = np.random.default_rng(batch * 100 + sequence).standard_normal((batch, sequence, 32), dtype=np.float32)
    mask_b11s = np.zeros((batch, 1, 1, sequence), dtype=np.float32)
    mask_b11s[1:, ..., sequence // 2 :] = -10000.0
    session = onnxruntime.InferenceSession(str(variants_dir / "graphs" / f"{part}.onnx"))
    found = session.run(None, {"hidden": hidden_bsh, "mask": mask_b11s})
    layer = int(part[-2:])
    with torch.inference_mode():
        mask = torch.from_numpy(mask_b11s)
        state = model.run_layer(layer - 1, torch.from_numpy(hidden_bsh), mask)
        expected = [state, model.exits[layer - 1](state, mask)]
        if layer < 4:
            expected.append(model.gates[layer](state, mask))
    for wanted, got in zip(expected, found, strict=True):
        assert got.shape == tuple(wanted.shape)
        np.testing.assert_allclose(got, wanted.numpy(), atol=2e-5)


@pytest.mark.parametrize("part", ["embeddings", "gate_02", "layer_03", "exit_04"])
@pytest.mark.parametrize(("batch", "sequence"), [(1, 1), (1, 24), (5, 7)])
def test_part_matches_pytorch(
    package_dir: Path, model: SmartBertForSequenceClassification, part: str, batch: int, sequence: int
) -> None:
    role, _, number = part.partition("_")
    rng = np.random.default_rng(batch * 100 + sequence)
    mask_bs = (np.arange(sequence) < np.linspace(sequence, 1, batch).astype(int)[:, None]).astype(np.int64)
    feeds: dict[str, NDArray[np.generic]]
    if role == "embeddings":
        feeds = {
            "input_ids": rng.integers(0, model.config.backbone_config["vocab_size"], (batch, sequence)),
            "attention_mask": mask_bs,
            "token_type_ids": rng.integers(0, 2, (batch, sequence)),
        }
    else:
        feeds = {
            "hidden": rng.standard_normal((batch, sequence, 32), dtype=np.float32),
            "mask": ((1 - mask_bs[:, None, None, :]) * -10000.0).astype(np.float32),
        }
    session = onnxruntime.InferenceSession((package_dir / "graphs" / f"{part}.onnx").read_bytes())
    found = session.run(None, feeds)
    with torch.inference_mode():
        returned = part_module(model, role, int(number or 0))(*(torch.from_numpy(array) for array in feeds.values()))
    expected = returned if isinstance(returned, tuple) else (returned,)
    for wanted, got in zip(expected, found, strict=True):
        assert got.shape == tuple(wanted.shape)
        np.testing.assert_allclose(got, wanted.numpy(), atol=2e-5)


def test_initializers_are_model_weights(package_dir: Path, model: SmartBertForSequenceClassification) -> None:
    for part in parts(model.config, "separate"):
        held = {entry.name: numpy_helper.to_array(entry) for entry in load(package_dir, part.name).graph.initializer}
        for weight, tensor in part_module(model, part.role, part.index).state_dict().items():
            array = tensor.numpy()
            assert weight in held, f"{part.name} lacks {weight}"
            same = np.array_equal(held[weight], array)
            assert same or np.array_equal(held[weight], array.T), f"{part.name}: {weight} holds other numbers"


def test_layers_differ_in_weights_only(package_dir: Path) -> None:
    for role in ("gate", "layer", "exit"):
        graphs = [load(package_dir, f"{role}_0{layer}") for layer in (1, 2, 3, 4)]
        assert len({graph.SerializeToString() for graph in graphs}) == 4
        assert len({without_weights(graph) for graph in graphs}) == 1


def test_contrast_heads_are_left_out(package_dir: Path, model: SmartBertForSequenceClassification) -> None:
    graphs = [load(package_dir, part) for part in NAMES]
    assert not [e.name for graph in graphs for e in graph.graph.initializer if "contrast" in e.name]
    # Besides the model's weights the files hold counters and single numbers only.
    weights = {name for p in parts(model.config, "separate") for name in state_names(model, p.role, p.index)}
    rest = [e for graph in graphs for e in graph.graph.initializer if e.name not in weights and e.data_type == FLOAT]
    assert max(int(np.prod(e.dims)) for e in rest) == 1


def test_graphs_hold_no_source_paths(package_dir: Path) -> None:
    repository = str(Path(__file__).resolve().parents[2])
    for part in NAMES:
        graph = load(package_dir, part)
        whole = graph.SerializeToString()
        for text in (repository, str(package_dir.parent), "site-packages", "/home/", "smartbert/", "Traceback"):
            assert text.encode() not in whole, f"{part} holds {text}"
        # Shorter strings may occur in weights by chance.
        for text in (".py", 'File "', "stack_trace", "line "):
            assert text.encode() not in without_weights(graph), f"{part} holds {text}"
        for node in graph.graph.node:
            assert not node.metadata_props and not node.doc_string


def without_weights(graph: onnx.ModelProto) -> bytes:
    bare = onnx.ModelProto()
    bare.CopyFrom(graph)
    for initializer in bare.graph.initializer:
        initializer.raw_data = b""
    return bytes(bare.SerializeToString(deterministic=True))


def state_names(model: SmartBertForSequenceClassification, role: str, index: int) -> set[str]:
    return set(part_module(model, role, index).state_dict())
