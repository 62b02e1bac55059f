"""What is recorded: the inputs of every linear layer, at full depth, and where a policy skips layers under it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smartbert.activations.ranges import ActivationRanges
from smartbert.activations.record import record_ranges
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import PlainClassifier
from smartbert_runtime import SmartBert
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.tokenizer import Tokens
from tests.conftest import LAYERS, SENTENCES

FULL_DEPTH = Policy(no_skip=True, no_exit=True)
INSIDE = ("attention.output.dense", "intermediate.dense", "output.dense")


@pytest.fixture(scope="module")
def tokens(classifier: SmartBert) -> Tokens:
    return classifier.tokenizer.encode(list(SENTENCES))


def extremes(ranges: ActivationRanges, point: str) -> tuple[float, float]:
    return ranges.points[point].minimum, ranges.points[point].maximum


@torch.inference_mode()
def hidden_states(
    model: SmartBertForSequenceClassification, tokens: Tokens, row: int, skip_threshold: float | None = None
) -> list[np.ndarray]:
    """Of one text without padding: the state before layer 1, and after every layer."""
    batch = tokens.rows([row])
    hidden_bsh, mask_b11s = model.embed(*(torch.from_numpy(array) for array in batch.feeds().values()))
    states = [hidden_bsh]
    no_skip = skip_threshold is None
    for step in model.layer_steps(hidden_bsh, mask_b11s, skip_threshold=skip_threshold, no_skip=no_skip):
        states.append(step.hidden_bsh)
    return [state.numpy() for state in states]


def test_points_and_counts(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    ranges = record_ranges(model, tokens, FULL_DEPTH)
    inner = {f"layer_{layer:02d}/{name}" for layer in range(1, LAYERS + 1) for name in INSIDE}
    assert set(ranges.points) == inner | {f"hidden_{layer:02d}" for layer in range(LAYERS + 1)}
    real = int(tokens.attention_mask_bs.sum())
    assert (ranges.texts, ranges.tokens) == (len(SENTENCES), real)
    for name, point in ranges.points.items():
        width = 64 if name.endswith("/output.dense") else 32
        assert sum(point.counts) == real * width, f"{name}: padding does not count"


def test_ranges_of_hidden_states(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    ranges = record_ranges(model, tokens, FULL_DEPTH, batch_size=5)
    states = [hidden_states(model, tokens, row) for row in range(len(SENTENCES))]
    for layer in range(LAYERS + 1):
        values = np.concatenate([text[layer].reshape(-1) for text in states])
        assert extremes(ranges, f"hidden_{layer:02d}") == pytest.approx((values.min(), values.max()), abs=1e-5)


def test_skipped_layers_are_recorded_too(model: SmartBertForSequenceClassification, tokens: Tokens) -> None:
    """A layer behind a skipped one reads another state: both ways are in the ranges."""
    policy = Policy(skip_threshold=0.5, no_exit=True)
    both, full = record_ranges(model, tokens, policy), record_ranges(model, tokens, FULL_DEPTH)
    states = [hidden_states(model, tokens, row, 0.5) for row in range(len(SENTENCES))]
    for layer in range(1, LAYERS):
        values = np.concatenate([text[layer].reshape(-1) for text in states])
        low, high = extremes(full, f"hidden_{layer:02d}")
        expected = min(low, float(values.min())), max(high, float(values.max()))
        assert extremes(both, f"hidden_{layer:02d}") == pytest.approx(expected, abs=1e-5)
    inner = "layer_02/output.dense"
    assert sum(full.points[inner].counts) < sum(both.points[inner].counts) < 2 * sum(full.points[inner].counts)


def test_plain_classifier(encoder_dir: str, tokens: Tokens) -> None:
    plain = PlainClassifier.from_backbone(str(encoder_dir), pooling="mean", max_input_length=24)
    ranges = record_ranges(plain, tokens, FULL_DEPTH)
    assert set(ranges.points) >= {"hidden_00", f"hidden_{LAYERS:02d}", "layer_03/intermediate.dense"}


def test_recording_is_deterministic_and_leaves_no_hooks(
    model: SmartBertForSequenceClassification, tokens: Tokens
) -> None:
    assert record_ranges(model, tokens, FULL_DEPTH) == record_ranges(model, tokens, FULL_DEPTH)
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in model.modules())
