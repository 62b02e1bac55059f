"""backbones.py: a second family against transformers' own model, the length that each has room for, what is refused.

Shape letters: b batch, s sequence, h hidden.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, DistilBertConfig, DistilBertModel, RobertaConfig, RobertaModel

from smartbert.backbones import FAMILIES, check_length, family_of, read_backbone_config
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.plain_classifier import PlainClassifier
from smartbert_runtime.errors import ConfigError
from tests.conftest import LAYERS as BERT_LAYERS
from tests.conftest import make_encoder_config
from tests.roberta import LAYERS, PAD_ID, POSITIONS, make_config, save_encoder

VOCABULARY = 50
from_backbone = SmartBertForSequenceClassification.from_backbone


@pytest.fixture(scope="module")
def roberta_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RoBERTa encoder folder; read only."""
    folder = tmp_path_factory.mktemp("roberta")
    save_encoder(folder, vocabulary=VOCABULARY)
    return folder


@pytest.fixture(scope="module")
def roberta(roberta_dir: Path) -> RobertaModel:
    """transformers' own model from that folder."""
    model = RobertaModel.from_pretrained(roberta_dir, add_pooling_layer=False, attn_implementation="eager")
    assert isinstance(model, RobertaModel)
    model.eval()
    return model


@pytest.fixture(scope="module")
def ours(roberta_dir: Path) -> SmartBertForSequenceClassification:
    """The same folder as SmartBERT's backbone, at the longest length that it has positions for."""
    model = from_backbone(str(roberta_dir), max_input_length=POSITIONS - 2, id2label={0: "no", 1: "yes"})
    model.eval()
    return model


def _padded(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Random ids (b,s) of real tokens, padded on the right with RoBERTa's own padding id, and the mask."""
    torch.manual_seed(9)
    ids_bs = torch.randint(5, VOCABULARY, (len(lengths), max(lengths)))
    mask_bs = (torch.arange(max(lengths))[None, :] < torch.tensor(lengths)[:, None]).long()
    return torch.where(mask_bs == 1, ids_bs, PAD_ID), mask_bs


@torch.no_grad()
def test_embeddings_match_roberta(ours: SmartBertForSequenceClassification, roberta: RobertaModel) -> None:
    # transformers counts positions from the padding id over tokens that are no padding; here they are counted once.
    ids_bs, mask_bs = _padded([28, 11, 2])
    hidden_bsh, mask_b11s = ours.embed(ids_bs, mask_bs)
    expected_bsh = roberta.embeddings(input_ids=ids_bs)
    real_bs = mask_bs.bool()
    assert torch.equal(hidden_bsh[real_bs], expected_bsh[real_bs])
    assert torch.equal(mask_b11s[:, 0, 0] == 0.0, real_bs)
    # The first token's position is 2, the padding id + 1: with BERT's counting, from 0, the embeddings are others.
    from_0_bsh = roberta.embeddings(input_ids=ids_bs, position_ids=torch.arange(28)[None].expand(3, -1))
    assert (from_0_bsh[real_bs] - hidden_bsh[real_bs]).abs().max() > 0.1


@torch.no_grad()
def test_last_hidden_state_matches_roberta(ours: SmartBertForSequenceClassification, roberta: RobertaModel) -> None:
    ids_bs, mask_bs = _padded([28, 11, 2])
    x_bsh, mask_b11s = ours.embed(ids_bs, mask_bs)
    for index in range(LAYERS):
        x_bsh = ours.run_layer(index, x_bsh, mask_b11s)
    expected_bsh = roberta(input_ids=ids_bs, attention_mask=mask_bs).last_hidden_state
    real_bs = mask_bs.bool()
    assert torch.allclose(x_bsh[real_bs], expected_bsh[real_bs], rtol=0.0, atol=1e-5)
    assert expected_bsh[real_bs].std() > 0.5  # not all alike: a wrong layer would show


@torch.no_grad()
def test_padded_text_matches_single_text(ours: SmartBertForSequenceClassification) -> None:
    ids_bs, mask_bs = _padded([28, 11, 2])
    together = ours.full_pass(ids_bs, mask_bs)
    for row, length in enumerate((28, 11, 2)):
        alone = ours.full_pass(ids_bs[row : row + 1, :length])
        assert torch.allclose(together.logits_blc[row], alone.logits_blc[0], rtol=0.0, atol=1e-5)
        assert torch.allclose(together.skip_logits_bl[row], alone.skip_logits_bl[0], rtol=0.0, atol=1e-5)


def test_roberta_weights_are_loaded(roberta_dir: Path, ours: SmartBertForSequenceClassification) -> None:
    stored = load_file(roberta_dir / "model.safetensors")
    loaded = ours.backbone.state_dict()
    assert [name for name in stored if not torch.equal(loaded[name], stored[name])] == []
    assert {name for name in loaded if name.endswith("weight")} <= set(stored)


@torch.no_grad()
def test_roberta_checkpoint_round_trip(ours: SmartBertForSequenceClassification, tmp_path: Path) -> None:
    ours.save_pretrained(tmp_path)
    loaded = SmartBertForSequenceClassification.from_pretrained(tmp_path)
    assert isinstance(loaded.backbone, RobertaModel)
    ids_bs, mask_bs = _padded([28, 11, 2])
    assert torch.equal(loaded.full_pass(ids_bs, mask_bs).logits_blc, ours.full_pass(ids_bs, mask_bs).logits_blc)


@torch.no_grad()
def test_plain_classifier_on_roberta(roberta_dir: Path, roberta: RobertaModel) -> None:
    plain = PlainClassifier.from_backbone(str(roberta_dir), pooling="mean", max_input_length=28)
    plain.eval()
    ids_bs, mask_bs = _padded([28, 11, 2])
    hidden_bsh = roberta(input_ids=ids_bs, attention_mask=mask_bs).last_hidden_state
    logits_bc = plain.logits(ids_bs, mask_bs, None)
    for row, length in enumerate((28, 11, 2)):
        expected_c = plain.get_submodule("classifier.classify")(hidden_bsh[row, :length].mean(dim=0))
        assert torch.allclose(logits_bc[row], expected_c, rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 29, 30])
def test_roberta_length_limit(roberta_dir: Path, tokens: int) -> None:
    # 30 rows of position embeddings, of which 0 and 1, the padding's, are no token's.
    with pytest.raises(ConfigError, match=f"must be from 2 to 28 tokens, .*, not {tokens}") as caught:
        from_backbone(str(roberta_dir), max_input_length=tokens)
    assert caught.value.hint == "change --max-length"
    check_length(read_backbone_config(str(roberta_dir)), 28)


def test_length_limits_of_families() -> None:
    bert, roberta = (family_of(config.to_dict()) for config in (make_encoder_config(), make_config(VOCABULARY)))
    assert (bert.first_position(make_encoder_config()), bert.longest_input(make_encoder_config())) == (0, 32)
    assert (roberta.first_position(make_config(VOCABULARY)), roberta.longest_input(make_config(VOCABULARY))) == (2, 28)
    # The real ones: 512 tokens each.
    assert bert.longest_input(BertConfig()) == 512
    assert roberta.longest_input(RobertaConfig(max_position_embeddings=514)) == 512


def test_keep_first_layers(encoder_dir: Path) -> None:
    stored = load_file(encoder_dir / "model.safetensors")
    whole, two = (from_backbone(str(encoder_dir), max_input_length=24, keep_layers=count) for count in (0, 2))
    assert (whole.config.layers, two.config.layers) == (BERT_LAYERS, 2)
    assert (len(two.gates), len(two.exits), len(two.backbone.encoder.layer)) == (2, 2, 2)
    for name, tensor in two.backbone.state_dict().items():
        if name in stored:
            assert torch.equal(tensor, stored[name]), name
    assert "encoder.layer.1.output.dense.weight" in two.backbone.state_dict()


@pytest.mark.parametrize("count", [5, -1])
def test_keep_too_many_layers(encoder_dir: Path, count: int) -> None:
    with pytest.raises(ConfigError, match=f"{count} layers cannot be kept: .* has 4") as caught:
        read_backbone_config(str(encoder_dir), count)
    assert "--keep-layers" in caught.value.hint


def test_keep_one_layer_is_refused(encoder_dir: Path) -> None:
    with pytest.raises(ConfigError, match="one layer"):
        from_backbone(str(encoder_dir), max_input_length=24, keep_layers=1)


def test_config_holds_no_path(encoder_dir: Path) -> None:
    assert str(encoder_dir) not in str(read_backbone_config(str(encoder_dir)))


def test_unsupported_family(tmp_path: Path) -> None:
    config = DistilBertConfig(vocab_size=50, dim=16, hidden_dim=32, n_layers=2, n_heads=2, max_position_embeddings=32)
    DistilBertModel(config).save_pretrained(tmp_path)
    for refused in (
        lambda: from_backbone(str(tmp_path), max_input_length=24),
        lambda: PlainClassifier.from_backbone(str(tmp_path), pooling="mean", max_input_length=24),
        lambda: read_backbone_config(str(tmp_path)),
    ):
        with pytest.raises(ConfigError, match="'distilbert' encoders are not supported") as caught:
            refused()
        assert caught.value.hint == "supported model types: bert, roberta"
    assert list(FAMILIES) == ["bert", "roberta"]
