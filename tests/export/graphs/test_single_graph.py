"""The layout `single`: one graph that decides as PyTorch under any thresholds, and is built to run fast."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_export.graphs.single_graph import single_model
from smartbert_export.parts.signatures import Part, parts
from smartbert_runtime import SmartBert
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.tokenizer import Tokens
from smartbert_runtime.trace import Trace
from tests.conftest import LAYERS, SENTENCES
from tests.package_folders import weights_of

INPUTS = ["input_ids", "attention_mask", "token_type_ids", "skip_threshold", "exit_threshold"]
DEFAULT = -1.0

# (skip threshold, exit threshold): with both ends of the scale, where a decision is always or never made.
THRESHOLDS = [
    (0.5, 0.5),
    (0.3, 0.9),
    (0.8, 0.2),
    (0.45, 0.7),
    (1.0, 0.5),
    (0.5, 0.0),
    (1.0, 0.0),
    (0.0, 0.5),
    (0.5, 1.0),
    (1.0, 1.0),
]


def opened(model: Path | bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options)


@pytest.fixture(scope="module")
def whole(variants_dir: Path) -> onnx.ModelProto:
    """The graph."""
    return onnx.load(variants_dir / "graphs" / "model.onnx")


@pytest.fixture(scope="module")
def session(variants_dir: Path) -> onnxruntime.InferenceSession:
    return opened(variants_dir / "graphs" / "model.onnx")


@pytest.fixture(scope="module")
def tokens(classifier: SmartBert) -> Tokens:
    return classifier.tokenizer.encode(SENTENCES)


def feeds(tokens: Tokens, row: int, skip_threshold: float, exit_threshold: float) -> dict[str, NDArray[np.generic]]:
    return {
        **tokens.rows([row]).feeds(),
        "skip_threshold": np.array(skip_threshold, dtype=np.float32),
        "exit_threshold": np.array(exit_threshold, dtype=np.float32),
    }


Answer = tuple[NDArray[np.float32], int, list[int]]


def run_sentences(
    session: onnxruntime.InferenceSession, tokens: Tokens, skip_threshold: float, exit_threshold: float
) -> list[Answer]:
    """Logits, exit layer and layers run of every sentence."""
    answers: list[Answer] = []
    for row in range(len(SENTENCES)):
        logits_1c, exit_layer, run_l = session.run(None, feeds(tokens, row, skip_threshold, exit_threshold))
        assert logits_1c.shape == (1, 3) and exit_layer.shape == () and run_l.shape == (LAYERS,)
        assert set(run_l.tolist()) <= {0, 1}
        answers.append((logits_1c[0], int(exit_layer), (np.flatnonzero(run_l) + 1).tolist()))
    return answers


def assert_decides_as(answers: list[Answer], expected: list[Trace], policy: Policy) -> None:
    """Decisions exactly, logits within 1e-4; decisions nearer than 1e-4 may differ, and there is at most one."""
    skip_threshold, exit_threshold = policy.skip_threshold, policy.exit_threshold
    margins = [trace.margin(Policy(skip_threshold=skip_threshold, exit_threshold=exit_threshold)) for trace in expected]
    clear = [row for row, margin in enumerate(margins) if margin > 1e-4]
    assert len(clear) >= 23
    for row in clear:
        logits_c, exit_layer, layers_run = answers[row]
        assert (tuple(layers_run), exit_layer) == (expected[row].layers_run, expected[row].exit_layer), SENTENCES[row]
        np.testing.assert_allclose(logits_c, expected[row].logits_c, atol=1e-4)


@pytest.mark.parametrize(("skip_threshold", "exit_threshold"), THRESHOLDS)
def test_decisions_match_pytorch(
    session: onnxruntime.InferenceSession,
    model: SmartBertForSequenceClassification,
    tokens: Tokens,
    skip_threshold: float,
    exit_threshold: float,
) -> None:
    policy = Policy(skip_threshold=skip_threshold, exit_threshold=exit_threshold)
    answers = run_sentences(session, tokens, skip_threshold, exit_threshold)
    assert_decides_as(answers, trace_rows(model, tokens, policy), policy)
    if skip_threshold == 1.0:
        assert all(layers_run == list(range(1, exit_layer + 1)) for _, exit_layer, layers_run in answers)
    if skip_threshold == 0.0:
        assert all(layers_run == [] for _, _, layers_run in answers)
    if exit_threshold == 0.0:
        assert {exit_layer for _, exit_layer, _ in answers} == {LAYERS}


def test_sentences_take_different_paths(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    paths = {trace.decisions() for trace in trace_rows(model, tokens, Policy(exit_threshold=0.5))}
    assert len(paths) >= 6 and len({exit_layer for _, _, exit_layer in paths}) >= 3


def test_negative_threshold_is_default(
    model: SmartBertForSequenceClassification, variants_dir: Path, tokens: Tokens
) -> None:
    """A graph with other defaults than the two that are equal in the tiny model."""
    default = Policy(skip_threshold=0.3, exit_threshold=0.8)
    graph = single_model(model.config, chosen(model), lambda part: load(variants_dir, part), default)
    session = opened(graph.SerializeToString())
    for given, meant in (
        ((DEFAULT, DEFAULT), (0.3, 0.8)),
        ((DEFAULT, 0.4), (0.3, 0.4)),
        ((0.6, -0.001), (0.6, 0.8)),
    ):
        policy = Policy(skip_threshold=meant[0], exit_threshold=meant[1])
        assert_decides_as(run_sentences(session, tokens, *given), trace_rows(model, tokens, policy), policy)


def test_default_is_checkpoint_policy(
    session: onnxruntime.InferenceSession, model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    policy = Policy(skip_threshold=model.config.skip_threshold, exit_threshold=model.config.exit_threshold)
    assert_decides_as(run_sentences(session, tokens, DEFAULT, DEFAULT), trace_rows(model, tokens, policy), policy)


def test_padding_changes_no_answer(session: onnxruntime.InferenceSession, tokens: Tokens) -> None:
    """A fixed shape pads; rows of the batch are fed with the longest one's padding."""
    for row in range(len(SENTENCES)):
        tight = feeds(tokens, row, 0.5, 0.5)
        wide = tight | {
            name: array[row : row + 1]
            for name, array in zip(
                INPUTS, (tokens.input_ids_bs, tokens.attention_mask_bs, tokens.token_type_ids_bs), strict=False
            )
        }
        one, other = session.run(None, tight), session.run(None, wide)
        np.testing.assert_allclose(one[0], other[0], atol=1e-5)
        assert one[1] == other[1] and np.array_equal(one[2], other[2])


def test_every_input_is_required(whole: onnx.ModelProto, session: onnxruntime.InferenceSession, tokens: Tokens) -> None:
    assert [value.name for value in whole.graph.input] == INPUTS
    assert not {tensor.name for tensor in whole.graph.initializer} & set(INPUTS), "an initializer is a default"
    for missing in INPUTS:
        rest = {name: array for name, array in feeds(tokens, 0, 0.5, 0.5).items() if name != missing}
        with pytest.raises(ValueError, match=rf"Required inputs \(\['{missing}'\]\) are missing"):
            session.run(None, rest)


def bodies(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, onnx.GraphProto]]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield node, attribute.g


def test_ifs_are_flat(whole: onnx.ModelProto) -> None:
    found = list(bodies(whole.graph))
    # Each layer's block, each later gate for a text that skipped the layer before, and the last exit head.
    assert len(found) == 2 * (LAYERS + (LAYERS - 1) + 1)
    assert {node.op_type for node, _ in found} == {"If"}
    for node, body in found:
        assert list(bodies(body)) == [], f"{body.name} holds another body"
        assert not body.input, f"{body.name} has inputs"
        # A part's weights stand in the body that runs it: onnxruntime fuses quantized products only there.
        assert bool(body.initializer) != body.name.endswith("_not_run"), body.name
        assert len(body.output) == len(node.output)


def test_else_branch_is_identity(whole: onnx.ModelProto) -> None:
    for node in whole.graph.node:
        if node.op_type == "If":
            (other,) = (attribute.g for attribute in node.attribute if attribute.name == "else_branch")
            assert {inner.op_type for inner in other.node} == {"Identity"}


def test_each_part_is_there_once(whole: onnx.ModelProto, model: SmartBertForSequenceClassification) -> None:
    names = [tensor.name for tensor in weights_of(whole.graph)]
    assert len(names) == len(set(names))
    held = {name.split("/")[0] for name in names if "/" in name}
    assert held == {part.name for part in chosen(model)}


def test_building_is_deterministic(
    model: SmartBertForSequenceClassification, variants_dir: Path, whole: onnx.ModelProto
) -> None:
    policy = Policy(skip_threshold=model.config.skip_threshold, exit_threshold=model.config.exit_threshold)
    again = single_model(model.config, chosen(model), lambda part: load(variants_dir, part), policy)
    assert again.graph.node == whole.graph.node
    weights = [[(tensor.name, tensor.raw_data) for tensor in weights_of(made.graph)] for made in (again, whole)]
    assert weights[0] == weights[1]


def chosen(model: SmartBertForSequenceClassification) -> list[Part]:
    return list(parts(model.config, "single"))


def load(package: Path, part: Part) -> onnx.ModelProto:
    return onnx.load(package / "graphs" / f"{part.name}.onnx")
