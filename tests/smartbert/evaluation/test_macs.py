"""macs.py against torch's own counter, against the reduced computations written out, and by hand for whole paths.

Shape letters: r rows (texts), s sequence, h hidden, w head width, a attention heads, z width of one, c classes.
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from smartbert.configuration import SmartBertConfig
from smartbert.evaluation.decisions import Decisions
from smartbert.evaluation.macs import MacCounter, layer_macs, plain_macs
from smartbert.modeling import (
    ExitHead,
    LearnedQueryPooling,
    PoolingAttention,
    SkipGate,
    SmartBertForSequenceClassification,
)
from tests.conftest import LABELS, SENTENCES
from tests.smartbert.conftest import Batch, with_config

CLASSES = len(LABELS)
# The tiny model: h 32, inner size 64, w 16, gates with 2 heads, exits with 4, 3 classes. For 5 and for 10 tokens:
LAYER = 42_560, 88_320  # s x (4 x 32 x 32 + 2 x 32 x 64) + 2 x s x s x 32 = s x 8192 + 64 x s x s
GATE = 3_424, 6_304  # s x (32 x 16 + 2 x 2 x 16) + 2 x 16 x 16 + 2 x 16 = s x 576 + 544
EXIT = 4_272, 7_472  # s x (32 x 16 + 2 x 4 x 16) + 2 x 16 x 16 + 2 x 16 x 16 + 16 x 3 = s x 640 + 1072
TOKENS = np.array([5, 10])


def _counted(counter: FlopCounterMode) -> int:
    """MAC of the matrix products inside `with counter`: 2 FLOP each."""
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


def test_bert_base_layer_at_128_tokens() -> None:
    base = BertConfig().to_dict()
    # 128 x (4 x 768 x 768 + 2 x 768 x 3072) + 2 x 128 x 128 x 768
    assert layer_macs(base, np.array([128])).tolist() == [931_135_488]


@torch.no_grad()
@pytest.mark.parametrize("tokens", [1, 7, 24])
def test_layer_matches_torch(model: SmartBertForSequenceClassification, tokens: int) -> None:
    hidden_bsh, mask_b11s = torch.zeros(1, tokens, 32), torch.zeros(1, 1, 1, tokens)
    with FlopCounterMode(display=False) as counter:
        model.run_layer(1, hidden_bsh, mask_b11s)
    assert layer_macs(model.config.backbone_config, np.array([tokens])).tolist() == [_counted(counter)]


@torch.no_grad()
@pytest.mark.parametrize("tokens", [3, 24])
def test_layer_with_other_inner_size(tokens: int) -> None:
    encoder = BertConfig(
        vocab_size=10, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40
    ).to_dict()
    uneven = SmartBertForSequenceClassification(SmartBertConfig(backbone_config=encoder, head_width=16))
    with FlopCounterMode(display=False) as counter:
        uneven.run_layer(0, torch.zeros(1, tokens, 24), torch.zeros(1, 1, 1, tokens))
    assert layer_macs(encoder, np.array([tokens])).tolist() == [_counted(counter)]


def _asked(attention: PoolingAttention | LearnedQueryPooling, t_sw: Tensor) -> Tensor:
    """What each head's attention has mixed, (a,w), the value projection still to come.

    (Wq x0 + bq) . (Wk x_s + bk) = (Wk^T q) . x_s + q . bk, and q . bk is the same for every token: a softmax does not
    see it. So the keys are never made: Wk is absorbed into the one query.
    """
    if isinstance(attention, LearnedQueryPooling):
        return (attention.queries.weight @ t_sw.T).softmax(dim=-1) @ t_sw
    heads, width = attention.heads, t_sw.shape[1]
    size = width // heads
    asker_1w = t_sw[:1]
    if attention.query_is_mean:
        asker_1w = torch.full((1, len(t_sw)), 1.0 / len(t_sw)) @ t_sw
    query_1w = asker_1w @ attention.query.weight.T + attention.query.bias
    absorbed_aw = torch.cat(
        [
            query_1w[:, head * size : (head + 1) * size] @ attention.key.weight[head * size : (head + 1) * size]
            for head in range(heads)
        ]
    )
    weights_as = (absorbed_aw @ t_sw.T / math.sqrt(size)).softmax(dim=-1)
    return weights_as @ t_sw


def _reduced_gate(gate: SkipGate, hidden_sh: Tensor) -> tuple[float, int]:
    """The gate's skip logit by the reduced computation, and the MAC that torch counts in it."""
    folded_aw: Tensor = gate.decide.weight
    constant: Tensor = gate.decide.bias
    if isinstance(gate.attention, PoolingAttention):
        value = gate.attention.value
        size = value.weight.shape[0] // gate.attention.heads
        # Made once for a model, not for a text: decide . (Wv_a m_a) = (Wv_a^T decide_a) . m_a.
        folded_aw = torch.cat(
            [
                gate.decide.weight[:, head * size : (head + 1) * size] @ value.weight[head * size : (head + 1) * size]
                for head in range(gate.attention.heads)
            ]
        )
        constant = gate.decide.weight[0].dot(value.bias) + gate.decide.bias
    with FlopCounterMode(display=False) as counter:
        t_sw = torch.tanh(hidden_sh @ gate.project.weight.T + gate.project.bias)
        mixed_aw = _asked(gate.attention, t_sw)
        logit_11 = folded_aw.reshape(1, -1) @ mixed_aw.reshape(-1, 1)
    return float(logit_11 + constant), _counted(counter)


def _values(attention: PoolingAttention | LearnedQueryPooling, mixed_aw: Tensor) -> Tensor:
    """Each attention head's slice of the value projection acts on what that head has mixed; none where learned."""
    if isinstance(attention, LearnedQueryPooling):
        return mixed_aw.reshape(1, -1)
    size = attention.value.weight.shape[0] // attention.heads
    weights = attention.value.weight.split(size)
    return torch.cat([mixed_aw[a : a + 1] @ weight.T for a, weight in enumerate(weights)], dim=1) + attention.value.bias


def _reduced_exit(head: ExitHead, hidden_sh: Tensor) -> tuple[Tensor, int]:
    """The exit head's logits (c) by the reduced computation, and the MAC that torch counts in it."""
    with FlopCounterMode(display=False) as counter:
        t_sw = torch.tanh(hidden_sh @ head.project.weight.T + head.project.bias)
        mixed_aw = _asked(head.attention, t_sw)
        dense_1w = torch.tanh(_values(head.attention, mixed_aw) @ head.dense.weight.T + head.dense.bias)
        logits_1c = dense_1w @ head.classify.weight.T + head.classify.bias
    return logits_1c[0], _counted(counter)


@torch.no_grad()
@pytest.mark.parametrize("query", ["first", "mean", "learned"])
def test_reduced_gate_macs(model: SmartBertForSequenceClassification, batch: Batch, query: str) -> None:
    asked = with_config(model, head_query=query)
    counter = MacCounter(config=asked.config)
    for row in (0, 9, 10):  # short and long sentences
        tokens = int(batch["attention_mask"][row].sum())
        x_bsh, mask_b11s = asked.embed(batch["input_ids"][row : row + 1, :tokens])
        gate = cast(SkipGate, asked.gates[1])
        logit, macs = _reduced_gate(gate, x_bsh[0])
        assert logit == pytest.approx(gate(x_bsh, mask_b11s).item(), abs=1e-5), SENTENCES[row]
        assert counter.gate(np.array([tokens])).tolist() == [macs]


@torch.no_grad()
@pytest.mark.parametrize("query", ["first", "mean", "learned"])
def test_reduced_exit_head_macs(model: SmartBertForSequenceClassification, batch: Batch, query: str) -> None:
    asked = with_config(model, head_query=query)
    counter = MacCounter(config=asked.config)
    for row in (0, 9, 10):
        tokens = int(batch["attention_mask"][row].sum())
        x_bsh, mask_b11s = asked.embed(batch["input_ids"][row : row + 1, :tokens])
        head = cast(ExitHead, asked.exits[2])
        logits_c, macs = _reduced_exit(head, x_bsh[0])
        assert torch.allclose(logits_c, head(x_bsh, mask_b11s)[0], rtol=0.0, atol=1e-5), SENTENCES[row]
        assert counter.exit(np.array([tokens])).tolist() == [macs]


def test_layer_gate_and_exit_by_hand(model: SmartBertForSequenceClassification) -> None:
    counter = MacCounter(config=model.config)
    assert tuple(counter.layer(TOKENS).tolist()) == LAYER
    assert tuple(counter.gate(TOKENS).tolist()) == GATE
    assert tuple(counter.exit(TOKENS).tolist()) == EXIT


def test_mean_query_cost(model: SmartBertForSequenceClassification) -> None:
    # One more product of (1,s) and (s,w): 16 for every token.
    counter = MacCounter(config=with_config(model, head_query="mean").config)
    assert counter.gate(TOKENS).tolist() == [GATE[0] + 5 * 16, GATE[1] + 10 * 16]
    assert counter.exit(TOKENS).tolist() == [EXIT[0] + 5 * 16, EXIT[1] + 10 * 16]


def test_gateless_model_pays_no_gate(model: SmartBertForSequenceClassification) -> None:
    counter = MacCounter(config=with_config(model, gates=False).config)
    assert counter.gate(TOKENS).tolist() == [0, 0]
    depths = Decisions(
        answers_r=np.zeros(2, dtype=np.int64),
        exit_layer_r=np.array([1, 3]),
        skips_rl=np.zeros((2, 4), dtype=np.bool_),
    )
    assert counter.path(TOKENS, depths).tolist() == [LAYER[0] + EXIT[0], 3 * LAYER[1] + 3 * EXIT[1]]


# 5 tokens: layer 1 run, 2 skipped, 3 run, where its head answers.   10 tokens: 1 run, 2 skipped, 3 run, 4 skipped.
DECISIONS = Decisions(
    answers_r=np.zeros(2, dtype=np.int64),
    exit_layer_r=np.array([3, 4]),
    skips_rl=np.array([[False, True, False, True], [False, True, False, True]]),
)


def test_path_cost(model: SmartBertForSequenceClassification) -> None:
    # First text: gates 1 to 3, heads 1 and 3; its layer 4, which would be skipped, is never come to.
    # Second text: gates 1 to 4, heads 1 and 3, and the last head, which answers although its layer was skipped.
    found = MacCounter(config=model.config).path(TOKENS, DECISIONS)
    assert found.tolist() == [2 * LAYER[0] + 3 * GATE[0] + 2 * EXIT[0], 2 * LAYER[1] + 4 * GATE[1] + 3 * EXIT[1]]


def test_path_with_gates_off(model: SmartBertForSequenceClassification) -> None:
    # Layers 1 to 3 with their heads, and all four, the last head once.
    decisions = Decisions(
        answers_r=np.zeros(2, dtype=np.int64),
        exit_layer_r=np.array([3, 4]),
        skips_rl=np.zeros((2, 4), dtype=np.bool_),
    )
    found = MacCounter(config=model.config).path(TOKENS, decisions, gates=False)
    assert found.tolist() == [3 * LAYER[0] + 3 * EXIT[0], 4 * LAYER[1] + 4 * EXIT[1]]


def test_path_with_exits_off(model: SmartBertForSequenceClassification) -> None:
    decisions = Decisions(
        answers_r=np.zeros(2, dtype=np.int64),
        exit_layer_r=np.array([4, 4]),
        skips_rl=np.array([[True, True, True, True], [False, False, True, False]]),
    )
    found = MacCounter(config=model.config).path(TOKENS, decisions, exits=False)
    assert found.tolist() == [4 * GATE[0] + EXIT[0], 3 * LAYER[1] + 4 * GATE[1] + EXIT[1]]


def test_path_at_full_depth(model: SmartBertForSequenceClassification) -> None:
    decisions = Decisions(
        answers_r=np.zeros(2, dtype=np.int64),
        exit_layer_r=np.array([4, 4]),
        skips_rl=np.zeros((2, 4), dtype=np.bool_),
    )
    found = MacCounter(config=model.config).path(TOKENS, decisions, gates=False, exits=False)
    assert found.tolist() == [4 * LAYER[0] + EXIT[0], 4 * LAYER[1] + EXIT[1]]


def test_counting_keeps_decisions(model: SmartBertForSequenceClassification) -> None:
    skips_rl = DECISIONS.skips_rl.copy()
    MacCounter(config=model.config).path(TOKENS, DECISIONS)
    assert np.array_equal(DECISIONS.skips_rl, skips_rl)


def test_plain_classifier_cost(
    model: SmartBertForSequenceClassification,
) -> None:
    backbone = model.config.backbone_config
    # Mean of 5 tokens: 5 x 32; token 0's dense layer: 32 x 32; the classifier: 32 x 3.
    mean = plain_macs(backbone, CLASSES, TOKENS)
    assert mean.tolist() == [4 * LAYER[0] + 5 * 32 + 32 * 3, 4 * LAYER[1] + 10 * 32 + 32 * 3]
    first = plain_macs(backbone, CLASSES, TOKENS, pooling="first")
    assert first.tolist() == [4 * LAYER[0] + 32 * 32 + 32 * 3, 4 * LAYER[1] + 32 * 32 + 32 * 3]
