"""Reduced heads equal those of the model by algebra, in every layer, with every query and with padding."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smartbert.modeling import ExitHead, PoolingAttention, SkipGate, SmartBertForSequenceClassification
from smartbert_export.parts.modules import BlockPart, part_module
from smartbert_export.parts.reduced_heads import JointAttention
from tests.conftest import LAYERS, make_model
from tests.parity.paper_oracle import random_rows

# Sums in another order, of numbers up to about 10.
TOLERANCE = 2e-5


@pytest.fixture(scope="module", params=["first", "mean", "learned"])
def either_query(request: pytest.FixtureRequest) -> SmartBertForSequenceClassification:
    return make_model(11, request.param)


@torch.inference_mode()
def padded_state(model: SmartBertForSequenceClassification) -> tuple[Tensor, Tensor]:
    """The embeddings of texts from one token to the longest, in one padded batch."""
    tokens = random_rows([1, 24, 7, 3, 12], model.config.backbone_config["vocab_size"], seed=2)
    ids = (tokens.input_ids_bs, tokens.attention_mask_bs, tokens.token_type_ids_bs)
    return model.embed(*(torch.from_numpy(array) for array in ids))


def block(model: SmartBertForSequenceClassification, layer: int) -> BlockPart:
    return cast(BlockPart, part_module(model, "block", layer))


def test_block_matches_its_modules(
    either_query: SmartBertForSequenceClassification,
) -> None:
    x_bsh, mask_b11s = padded_state(either_query)
    with torch.inference_mode():
        for layer in range(1, LAYERS + 1):
            hidden_next_bsh, logits_bc, *gate = block(either_query, layer)(x_bsh, mask_b11s)
            x_bsh = either_query.run_layer(layer - 1, x_bsh, mask_b11s)
            assert torch.equal(hidden_next_bsh, x_bsh), "the layer itself is not touched"
            expected_bc = either_query.exits[layer - 1](x_bsh, mask_b11s)
            assert logits_bc.shape == expected_bc.shape
            np.testing.assert_allclose(logits_bc.numpy(), expected_bc.numpy(), atol=TOLERANCE, rtol=0)
            assert len(gate) == (0 if layer == LAYERS else 1)
            if gate:
                expected_b = either_query.gates[layer](x_bsh, mask_b11s)
                assert gate[0].shape == expected_b.shape
                np.testing.assert_allclose(gate[0].numpy(), expected_b.numpy(), atol=TOLERANCE, rtol=0)


def test_tolerance_tells_layers_apart(model: SmartBertForSequenceClassification) -> None:
    x_bsh, mask_b11s = padded_state(model)
    wrong = BlockPart(model.backbone.encoder.layer[0], cast(ExitHead, model.exits[1]), cast(SkipGate, model.gates[2]))
    with torch.inference_mode():
        _, logits_bc, skip_logit_b = block(model, 1)(x_bsh, mask_b11s)
        _, other_bc, other_b = wrong(x_bsh, mask_b11s)
    assert (logits_bc - other_bc).abs().max() > 1000 * TOLERANCE
    assert (skip_logit_b - other_b).abs().max() > 1000 * TOLERANCE


def test_padding_changes_no_output(either_query: SmartBertForSequenceClassification) -> None:
    x_bsh, mask_b11s = padded_state(either_query)
    part = block(either_query, 2)
    with torch.inference_mode():
        together = part(x_bsh, mask_b11s)
        for row, length in enumerate((1, 24, 7, 3, 12)):
            alone = part(x_bsh[row : row + 1, :length], mask_b11s[row : row + 1, ..., :length])
            np.testing.assert_allclose(together[0][row, :length], alone[0][0], atol=TOLERANCE, rtol=0)
            for whole, one in zip(together[1:], alone[1:], strict=True):
                np.testing.assert_allclose(whole[row].numpy(), one[0].numpy(), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("query", ["first", "mean", "learned"])
@pytest.mark.parametrize(("heads", "outputs"), [(1, 1), (2, 1), (4, 16), (8, 3)])
def test_reduced_attention(query: str, heads: int, outputs: int) -> None:
    torch.manual_seed(heads)
    attention, behind = PoolingAttention(16, heads, query), nn.Linear(16, outputs)
    for linear in (attention.query, attention.key, attention.value, behind):
        nn.init.normal_(linear.weight, std=0.5)
        nn.init.normal_(linear.bias, std=0.5)
    t_bsw = torch.tanh(torch.randn(3, 9, 16))
    mask_b11s = torch.zeros(3, 1, 1, 9)
    mask_b11s[0, ..., 1:] = mask_b11s[1, ..., 5:] = -10000.0
    with torch.inference_mode():
        expected_bo = behind(attention(t_bsw, mask_b11s))
        found_bo = JointAttention([(attention, behind)])(t_bsw, mask_b11s)[0]
    assert found_bo.shape == (3, outputs)
    np.testing.assert_allclose(found_bo.numpy(), expected_bo.numpy(), atol=TOLERANCE, rtol=0)


def test_key_bias_drops_out() -> None:
    torch.manual_seed(0)
    attention, behind = PoolingAttention(16, 4, "first"), nn.Linear(16, 3)
    before = {name: tensor.clone() for name, tensor in JointAttention([(attention, behind)]).state_dict().items()}
    nn.init.constant_(attention.key.bias, 5.0)
    after = JointAttention([(attention, behind)]).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    nn.init.constant_(attention.query.bias, 5.0)
    assert not torch.equal(JointAttention([(attention, behind)]).state_dict()["ask.0.0.bias"], before["ask.0.0.bias"])


def test_building_keeps_model(model: SmartBertForSequenceClassification) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    block(model, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
