"""Sharing: equal weights lie in one file of the package, and onnxruntime answers the same by path and from memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from smartbert_export.package_files import GraphWriter
from smartbert_runtime.package.manifest import Borrowed, FileEntry
from smartbert_runtime.package.open import open_package
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.sessions.threads import session_options

WIDTH = 32
LARGE = np.random.default_rng(0).standard_normal((WIDTH, WIDTH), dtype=np.float32)
OTHER = np.random.default_rng(1).standard_normal((WIDTH, WIDTH), dtype=np.float32)
SMALL = np.random.default_rng(2).standard_normal(WIDTH, dtype=np.float32)
X = np.random.default_rng(3).standard_normal((3, WIDTH), dtype=np.float32)


def graph(**weights: NDArray[np.generic]) -> onnx.ModelProto:
    """y = x A + b ... in the order given: matrices are multiplied, vectors added."""
    nodes, last = [], "x"
    for name, array in weights.items():
        nodes.append(helper.make_node("MatMul" if array.ndim == 2 else "Add", [last, name], [last := f"{name}.out"]))
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", WIDTH]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    made = helper.make_graph(nodes, "sum", values[:1], values[1:], tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def staging(tmp_path: Path) -> Path:
    (tmp_path / "graphs").mkdir()
    return tmp_path


def write(writer: GraphWriter, name: str, **weights: NDArray[np.generic]) -> FileEntry:
    source = writer.staging / f"{name}.source"
    source.write_bytes(graph(**weights).SerializeToString(deterministic=True))
    return writer.write(f"graphs/{name}.onnx", source)


def answer(staging: Path, name: str) -> NDArray[np.float32]:
    """As any program would: onnxruntime opens the file and finds what it borrows beside it."""
    (y,) = onnxruntime.InferenceSession(str(staging / "graphs" / f"{name}.onnx")).run(None, {"x": X})
    return np.asarray(y)


def test_an_equal_weight_is_borrowed_whatever_its_name(staging: Path) -> None:
    writer = GraphWriter(staging, share=True)
    lender = write(writer, "lender", first=OTHER, weight=LARGE, bias=SMALL)
    borrower = write(writer, "borrower", kernel=LARGE, second=OTHER + 1)
    assert lender.borrowed == ()
    assert (staging / "graphs" / "lender.onnx").read_bytes() == (staging / "lender.source").read_bytes()
    (weight,) = borrower.borrowed
    assert weight == Borrowed(
        name="kernel",
        file="graphs/lender.onnx",
        offset=weight.offset,
        bytes=LARGE.nbytes,
        dtype="float32",
        dims=(WIDTH, WIDTH),
    )
    content = (staging / "graphs" / "lender.onnx").read_bytes()
    assert content[weight.offset : weight.offset + weight.bytes] == LARGE.tobytes()
    assert LARGE.tobytes() not in (staging / "graphs" / "borrower.onnx").read_bytes()
    np.testing.assert_allclose(answer(staging, "lender"), X @ OTHER @ LARGE + SMALL, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(answer(staging, "borrower"), X @ LARGE @ (OTHER + 1), rtol=1e-4, atol=1e-4)


def test_a_weight_is_borrowed_from_the_file_that_holds_it_and_not_from_another_borrower(staging: Path) -> None:
    writer = GraphWriter(staging, share=True)
    for name in ("first", "second", "third"):
        entry = write(writer, name, weight=LARGE)
    assert [weight.file for weight in entry.borrowed] == ["graphs/first.onnx"]
    assert np.array_equal(answer(staging, "third"), answer(staging, "first"))


def test_small_weights_stay_inside(staging: Path) -> None:
    writer = GraphWriter(staging, share=True)
    weights = {"few": LARGE[:7], "many": LARGE[:8], "bias": SMALL}  # 896, 1024 and 128 bytes
    write(writer, "lender", **weights)
    entry = write(writer, "borrower", **weights)
    assert [(weight.name, weight.bytes) for weight in entry.borrowed] == [("many", 1024)]
    held = onnx.load(staging / "graphs" / "borrower.onnx", load_external_data=False).graph.initializer
    assert {tensor.name: len(tensor.raw_data) for tensor in held} == {"few": 896, "many": 0, "bias": 128}


@pytest.mark.parametrize(
    "unlike",
    [
        pytest.param(LARGE.reshape(2 * WIDTH, WIDTH // 2), id="other-dimensions"),
        pytest.param(LARGE.view(np.int32), id="other-type"),
        pytest.param(np.nextafter(LARGE, np.float32(9.0)), id="other-numbers"),
    ],
)
def test_only_the_same_numbers_in_the_same_shape_and_type_are_equal(staging: Path, unlike: NDArray[np.generic]) -> None:
    writer = GraphWriter(staging, share=True)
    write(writer, "lender", weight=LARGE)
    assert write(writer, "other", weight=unlike).borrowed == ()


def test_nothing_is_borrowed_unless_sharing_was_asked_for(staging: Path) -> None:
    writer = GraphWriter(staging, share=False)
    entries = [write(writer, name, weight=LARGE) for name in ("first", "second")]
    assert [entry.borrowed for entry in entries] == [(), ()]
    first, second = ((staging / entry.file).read_bytes() for entry in entries)
    assert first == second and LARGE.tobytes() in second
    assert {entry.sha256 for entry in entries} == {entries[0].sha256}
    assert len(second) == entries[0].bytes


def borrowing_parts(package: Path) -> list[tuple[str, str]]:
    manifest = open_package(package).manifest
    return [
        (variant.name, component.name)
        for variant in manifest.variants
        for component in manifest.in_variant(variant.name)
        if component.files[variant.name].borrowed
    ]


def test_stages_and_the_single_graph_borrow_from_the_separate_parts(variants_dir: Path) -> None:
    borrowing = borrowing_parts(variants_dir)
    assert {part for variant, part in borrowing if variant == "fused-fp32"} == {f"stage_0{n}" for n in (1, 2, 3, 4)}
    assert [part for variant, part in borrowing if variant == "single-fp32"] == ["model"]
    assert not [part for variant, part in borrowing if variant == "separate-fp32"]


def test_the_runtime_answers_as_onnxruntime_by_path_and_as_a_graph_with_its_own_weights(variants_dir: Path) -> None:
    package = open_package(variants_dir)
    rng = np.random.default_rng(0)
    mask_b11s = np.zeros((3, 1, 1, 7), dtype=np.float32)
    mask_b11s[0, ..., 4:] = -10000.0
    state: dict[str, NDArray[np.generic]] = {
        "hidden": rng.standard_normal((3, 7, 32), dtype=np.float32),
        "mask": mask_b11s,
    }
    ids = {
        "input_ids": rng.integers(1, 60, (1, 7)),
        "attention_mask": np.ones((1, 7), dtype=np.int64),
        "token_type_ids": np.zeros((1, 7), dtype=np.int64),
    }
    thresholds = {name: np.array(0.4, dtype=np.float32) for name in ("skip_threshold", "exit_threshold")}
    kinds: dict[str, dict[str, NDArray[np.generic]]] = {"model": {**ids, **thresholds}, "embeddings": {**ids}}
    for variant, part in borrowing_parts(variants_dir):
        feeds = kinds.get(part, state)
        sessions = Sessions(package, package.manifest.variant(*variant.split("-")), threads=1)
        file = variants_dir / package.manifest.component(part).files[variant].file
        options = session_options(1)
        by_path = onnxruntime.InferenceSession(str(file), options).run(None, feeds)
        own = onnxruntime.InferenceSession(onnx.load(file).SerializeToString(), options).run(None, feeds)
        for found, other, whole in zip(sessions.run(part, feeds), by_path, own, strict=True):
            assert np.array_equal(found, other) and np.array_equal(found, whole), f"{part} of {variant}"


def test_every_borrowed_weight_is_the_one_of_the_lender(variants_dir: Path) -> None:
    manifest = open_package(variants_dir).manifest
    entries = {entry.file: entry for entry in manifest.files() if entry.borrowed}
    assert len(entries) > 10
    for entry in entries.values():
        model = onnx.load(variants_dir / entry.file)  # with the bytes of the other files
        arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        for weight in entry.borrowed:
            content = (variants_dir / weight.file).read_bytes()[weight.offset : weight.offset + weight.bytes]
            assert arrays[weight.name].tobytes() == content
            assert (str(arrays[weight.name].dtype), arrays[weight.name].shape) == (weight.dtype, weight.dims)
