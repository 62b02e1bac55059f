"""modeling.py: attention by hand, sizes, the inference rule in `forward`, and the checkpoint folder."""

from __future__ import annotations

import math
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from smartbert.configuration import SmartBertConfig
from smartbert.modeling import (
    MASKED,
    ContrastHead,
    ExitHead,
    FullPass,
    LearnedQueryPooling,
    PoolingAttention,
    SkipGate,
    SmartBertForSequenceClassification,
)
from smartbert.reference import trace_rows
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.errors import ConfigError
from smartbert_runtime.tokenizer import Tokens
from tests.conftest import LABELS, LAYERS, SENTENCES, make_encoder_config
from tests.smartbert.conftest import Batch, with_config


def _mask(valid_bs: Tensor) -> Tensor:
    return (1.0 - valid_bs[:, None, None, :].float()) * MASKED


def _inputs(batch: Batch) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in batch.items() if name != "labels"}


def _full_pass(
    model: SmartBertForSequenceClassification, inputs: dict[str, Tensor], *, no_skip: bool = False
) -> FullPass:
    return model.full_pass(inputs["input_ids"], inputs["attention_mask"], inputs["token_type_ids"], no_skip=no_skip)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _full_attention(ours: PoolingAttention) -> nn.MultiheadAttention:
    """torch's own attention with the weights of ours."""
    width = ours.query.weight.shape[0]
    full = nn.MultiheadAttention(width, ours.heads, batch_first=True)
    parts = (ours.query, ours.key, ours.value)
    full.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
    full.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    full.out_proj.weight.copy_(torch.eye(width))  # ours has no output projection
    full.out_proj.bias.zero_()
    return full


@torch.no_grad()
def test_first_token_attention_is_full_attention() -> None:
    torch.manual_seed(3)
    ours = PoolingAttention(16, 4, "first")
    full = _full_attention(ours)
    t_bsw = torch.randn(3, 7, 16)
    valid_bs = torch.arange(7)[None, :] < torch.tensor([7, 4, 1])[:, None]
    expected_bsw, _ = full(t_bsw, t_bsw, t_bsw, key_padding_mask=~valid_bs)
    assert torch.allclose(ours(t_bsw, _mask(valid_bs)), expected_bsw[:, 0], atol=1e-6)


@torch.no_grad()
def test_first_token_attention_by_hand() -> None:
    # Width 1, one head, query = key = value = the input: t = (1, 2, 3) gives scores 1, 2, 3 for token 0.
    attention = PoolingAttention(1, 1, "first")
    for part in (attention.query, attention.key, attention.value):
        part.weight.fill_(1.0)
        part.bias.zero_()
    t_bsw = torch.tensor([[[1.0], [2.0], [3.0]]])
    e1, e2, e3 = math.exp(1), math.exp(2), math.exp(3)
    whole = attention(t_bsw, torch.zeros(1, 1, 1, 3)).item()
    assert whole == pytest.approx((e1 + 2 * e2 + 3 * e3) / (e1 + e2 + e3), abs=1e-6)
    padded = attention(t_bsw, _mask(torch.tensor([[1, 1, 0]]))).item()
    assert padded == pytest.approx((e1 + 2 * e2) / (e1 + e2), abs=1e-6)


@torch.no_grad()
def test_mean_attention_is_full_attention() -> None:
    torch.manual_seed(3)
    ours = PoolingAttention(16, 4, "mean")
    full = _full_attention(ours)
    t_bsw, lengths = torch.randn(3, 7, 16), [7, 4, 1]
    found_bw = ours(t_bsw, _mask(torch.arange(7)[None, :] < torch.tensor(lengths)[:, None]))
    for row, length in enumerate(lengths):
        # One text at a time, its padding cut off, so that nothing is masked.
        t_1sw = t_bsw[row : row + 1, :length]
        mean_11w = sum(t_1sw[:, token : token + 1] for token in range(length)) / length
        expected_11w, _ = full(mean_11w, t_1sw, t_1sw)
        assert torch.allclose(found_bw[row], expected_11w[0, 0], atol=1e-6)
    ours.query_is_mean = False
    first_bw = ours(t_bsw, torch.zeros(3, 1, 1, 7))
    assert (first_bw[0] - found_bw[0]).abs().max() > 1e-3  # the two askers are told apart


@torch.no_grad()
def test_mean_attention_by_hand() -> None:
    # As above, but t = (1, 2, 3) is asked by its mean 2: scores 2, 4, 6. Without the third, by 1.5: scores 1.5, 3.
    attention = PoolingAttention(1, 1, "mean")
    for part in (attention.query, attention.key, attention.value):
        part.weight.fill_(1.0)
        part.bias.zero_()
    t_bsw = torch.tensor([[[1.0], [2.0], [3.0]]])
    e2, e4, e6 = math.exp(2), math.exp(4), math.exp(6)
    whole = attention(t_bsw, torch.zeros(1, 1, 1, 3)).item()
    assert whole == pytest.approx((e2 + 2 * e4 + 3 * e6) / (e2 + e4 + e6), abs=1e-6)
    padded = attention(t_bsw, _mask(torch.tensor([[1, 1, 0]]))).item()
    assert padded == pytest.approx((math.exp(1.5) + 2 * math.exp(3)) / (math.exp(1.5) + math.exp(3)), abs=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("query", ["first", "mean", "learned"])
def test_attention_ignores_padding(query: str) -> None:
    torch.manual_seed(4)
    attention = LearnedQueryPooling(16, 2) if query == "learned" else PoolingAttention(16, 2, query)
    t_bsw, junk_bsw = torch.randn(2, 5, 16), 100.0 * torch.randn(2, 3, 16)
    alone_bw = attention(t_bsw, torch.zeros(2, 1, 1, 5))
    mask_b11s = _mask(torch.tensor([[1] * 5 + [0] * 3] * 2))
    padded_bw = attention(torch.cat([t_bsw, junk_bsw], dim=1), mask_b11s)
    assert torch.allclose(padded_bw, alone_bw, rtol=0.0, atol=1e-6)
    assert torch.equal(padded_bw, attention(torch.cat([t_bsw, -junk_bsw], dim=1), mask_b11s))


@torch.no_grad()
def test_learned_queries_by_hand() -> None:
    """Two tokens of width 1: weights softmax(q t), for each head its own mean of the tokens."""
    attention = LearnedQueryPooling(1, 2)
    attention.queries.weight.copy_(torch.tensor([[0.0], [2.0]]))
    t_bsw = torch.tensor([[[1.0], [3.0]]])
    even, sharp = attention(t_bsw, torch.zeros(1, 1, 1, 2))[0].tolist()
    e2, e6 = math.exp(2.0), math.exp(6.0)
    assert even == pytest.approx(2.0) and sharp == pytest.approx((e2 + 3 * e6) / (e2 + e6))


def test_parameter_counts_of_learned_queries() -> None:
    """768 x 128 + 128; a query vector a head; the gate's 256 + 1; the exit's 512 x 128 + 128 and 128 x 2 + 2."""
    config = SmartBertConfig(num_labels=2, head_query="learned")
    assert _count(SkipGate(config)) == 98_432 + 2 * 128 + 257
    assert _count(ExitHead(config)) == 98_432 + 4 * 128 + 65_664 + 258


def test_indivisible_width_is_refused() -> None:
    with pytest.raises(ConfigError, match="width of 16 cannot be split into 3"):
        PoolingAttention(16, 3, "first")


def test_parameter_counts_at_base_size() -> None:
    config = SmartBertConfig(num_labels=2)  # hidden 768, width 128
    # project 768 x 128 + 128 = 98,432; query, key, value 3 x (128 x 128 + 128) = 49,536
    # gate: + 128 + 1 = 148,097; exit head: + dense 16,512 + classify 2 x 128 + 2 = 164,738
    assert _count(SkipGate(config)) == 148_097
    assert _count(ExitHead(config)) == 164_738


def test_gate_bias(encoder_dir: Path) -> None:
    for bias in (-3.0, 0.0):
        model = SmartBertForSequenceClassification.from_backbone(str(encoder_dir), max_input_length=24, gate_bias=bias)
        assert [cast(SkipGate, gate).decide.bias.item() for gate in model.gates] == [bias] * LAYERS


def test_contrast_heads_return_unit_vectors() -> None:
    torch.manual_seed(5)
    projected_bsw = ContrastHead(32, 16)(torch.randn(2, 3, 32))
    assert projected_bsw.shape == (2, 3, 16)
    assert torch.allclose(projected_bsw.norm(dim=-1), torch.ones(2, 3), atol=1e-6)


def test_one_class_is_refused() -> None:
    config = SmartBertConfig(backbone_config=make_encoder_config().to_dict(), head_width=16, num_labels=1)
    with pytest.raises(ConfigError, match="at least two classes, not 1"):
        SmartBertForSequenceClassification(config)


@torch.no_grad()
@pytest.mark.parametrize("query", ["first", "mean", "learned"])
def test_padding_changes_no_bit(model: SmartBertForSequenceClassification, batch: Batch, query: str) -> None:
    asked, inputs = with_config(model, head_query=query), _inputs(batch)
    before = _full_pass(asked, inputs)
    inputs["input_ids"] = torch.where(inputs["attention_mask"] == 1, inputs["input_ids"], 7)
    after = _full_pass(asked, inputs)
    assert not torch.equal(inputs["input_ids"], batch["input_ids"])
    assert torch.equal(after.skip_logits_bl, before.skip_logits_bl)
    assert torch.equal(after.logits_blc, before.logits_blc)


@torch.no_grad()
def test_default_mask_and_token_types(model: SmartBertForSequenceClassification) -> None:
    ids = torch.tensor([[2, 9, 11, 3]])
    explicit = model.full_pass(ids, torch.ones_like(ids), torch.zeros_like(ids))
    assert torch.equal(model.full_pass(ids).logits_blc, explicit.logits_blc)


@torch.no_grad()
def test_token_types_matter(model: SmartBertForSequenceClassification) -> None:
    ids = torch.tensor([[2, 9, 3, 11, 3]])
    pair = model.full_pass(ids, None, torch.tensor([[0, 0, 0, 1, 1]]))
    assert (pair.logits_blc - model.full_pass(ids).logits_blc).abs().max() > 1e-3


@torch.no_grad()
def test_what_heads_read(fresh_model: SmartBertForSequenceClassification, batch: Batch) -> None:
    for gate in fresh_model.gates:
        cast(SkipGate, gate).decide.bias.fill_(1000.0)  # every layer is skipped
    run = _full_pass(fresh_model, _inputs(batch))
    x_bsh, mask_b11s = fresh_model.embed(**_inputs(batch))
    for index in range(LAYERS - 1):
        expected_bc = fresh_model.exits[index](fresh_model.run_layer(index, x_bsh, mask_b11s), mask_b11s)
        assert torch.equal(run.logits_blc[:, index], expected_bc)
    assert torch.equal(run.logits_blc[:, -1], fresh_model.exits[-1](x_bsh, mask_b11s))


@pytest.mark.parametrize(("skip_threshold", "exit_threshold"), [(0.5, 0.5), (0.5, 0.0), (0.02, 0.3), (1.0, 0.9)])
def test_forward_matches_reference(
    fresh_model: SmartBertForSequenceClassification,
    batch: Batch,
    tokens: Tokens,
    skip_threshold: float,
    exit_threshold: float,
) -> None:
    fresh_model.config.skip_threshold, fresh_model.config.exit_threshold = skip_threshold, exit_threshold
    policy = Policy(skip_threshold=skip_threshold, exit_threshold=exit_threshold)
    traces = trace_rows(fresh_model, tokens, policy)
    margins = [trace.margin(policy) for trace in traces]
    assert min(margins) > 1e-4  # no decision that rounding could turn
    with torch.no_grad():
        logits_bc = cast(Tensor, fresh_model(**_inputs(batch)).logits)
    for sentence, row_c, trace in zip(SENTENCES, logits_bc, traces, strict=True):
        assert torch.allclose(row_c, torch.from_numpy(trace.logits_c), rtol=0.0, atol=2e-5), sentence


@torch.no_grad()
def test_forward_loss(model: SmartBertForSequenceClassification, batch: Batch) -> None:
    output = model(**batch)
    probabilities_bc = cast(Tensor, output.logits).softmax(-1)
    right_b = probabilities_bc[torch.arange(len(SENTENCES)), batch["labels"]]
    assert cast(Tensor, output.loss).item() == pytest.approx(-right_b.log().mean().item(), rel=1e-5)
    assert model(**_inputs(batch)).loss is None


def test_save_and_load(model: SmartBertForSequenceClassification, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.json", "model.safetensors"]  # no .bin
    loaded = SmartBertForSequenceClassification.from_pretrained(tmp_path)
    before, after = model.state_dict(), loaded.state_dict()
    assert list(after) == list(before)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    assert "gates.3.decide.bias" in before
    assert loaded.config.id2label == dict(enumerate(LABELS))
    assert not loaded.training


@torch.no_grad()
def test_auto_model(model: SmartBertForSequenceClassification, batch: Batch, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert isinstance(loaded, SmartBertForSequenceClassification)
    assert torch.equal(cast(Tensor, loaded(**_inputs(batch)).logits), cast(Tensor, model(**_inputs(batch)).logits))


@torch.no_grad()
def test_mean_queries_match_reference(model: SmartBertForSequenceClassification, batch: Batch, tokens: Tokens) -> None:
    asked = with_config(model, head_query="mean")
    for row, trace in enumerate(trace_rows(asked, tokens, Policy(no_skip=True, no_exit=True))):
        logits_c = _full_pass(asked, _inputs(batch), no_skip=True).logits_blc[row, -1]
        assert torch.allclose(logits_c, torch.from_numpy(trace.logits_c), rtol=0.0, atol=2e-5), SENTENCES[row]
    first = _full_pass(model, _inputs(batch), no_skip=True)
    assert (_full_pass(asked, _inputs(batch), no_skip=True).logits_blc - first.logits_blc).abs().max() > 1e-2


@torch.no_grad()
def test_no_skip_runs_every_layer(model: SmartBertForSequenceClassification, batch: Batch) -> None:
    run = _full_pass(model, _inputs(batch), no_skip=True)
    x_bsh, mask_b11s = model.embed(**_inputs(batch))
    for index in range(LAYERS):
        assert torch.equal(run.skip_logits_bl[:, index], cast(Tensor, model.gates[index](x_bsh, mask_b11s)))
        x_bsh = model.run_layer(index, x_bsh, mask_b11s)
        assert torch.equal(run.logits_blc[:, index], cast(Tensor, model.exits[index](x_bsh, mask_b11s)))
    assert (run.skip_logits_bl >= 0.0).any()  # some gate would have skipped


@torch.no_grad()
def test_gateless_model_never_skips(model: SmartBertForSequenceClassification, batch: Batch) -> None:
    ungated = with_config(model, gates=False)
    run = _full_pass(ungated, _inputs(batch))
    assert run.skip_logits_bl.shape == (len(SENTENCES), LAYERS)
    assert torch.isneginf(run.skip_logits_bl).all()
    obeyed = _full_pass(model, _inputs(batch), no_skip=True)  # the same weights, gates not obeyed
    assert torch.equal(run.logits_blc, obeyed.logits_blc)
    ungated.config.skip_threshold = 0.01
    assert torch.equal(_full_pass(ungated, _inputs(batch)).logits_blc, run.logits_blc)


@torch.no_grad()
def test_gateless_save_and_load(model: SmartBertForSequenceClassification, batch: Batch, tmp_path: Path) -> None:
    ungated = with_config(model, gates=False)
    ungated.save_pretrained(tmp_path)
    loaded, info = SmartBertForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not loaded.config.gates and len(loaded.gates) == 0
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert not [name for name in loaded.state_dict() if name.startswith("gates")]
    assert torch.equal(cast(Tensor, loaded(**_inputs(batch)).logits), cast(Tensor, ungated(**_inputs(batch)).logits))


def test_pickled_checkpoint_is_refused(model: SmartBertForSequenceClassification, tmp_path: Path) -> None:
    model.config.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        SmartBertForSequenceClassification.from_pretrained(tmp_path)
