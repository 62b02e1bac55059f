"""Golden samples: what is recorded, which texts are left out, and how large they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig

from smartbert.configuration import SmartBertConfig
from smartbert.modeling import SmartBertForSequenceClassification
from smartbert_export.parity.probes import small_probes, wide_probes
from smartbert_export.parity.record import clear_calls, record, record_probe
from smartbert_runtime import SmartBert
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import Probe, read_golden, unpack
from smartbert_runtime.tokenizer import Tokens
from tests.conftest import LAYERS, SENTENCES

MEGABYTE = 1_000_000


def tokens_of(lengths: Sequence[int]) -> Tokens:
    """Texts of these lengths, padded; token 7 at every place."""
    mask_bs = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    return Tokens(
        input_ids_bs=mask_bs * 7,
        attention_mask_bs=mask_bs,
        token_type_ids_bs=np.zeros_like(mask_bs),
        truncated=(False,) * len(lengths),
    )


def lengths_of(tokens: Tokens) -> list[int]:
    return [int(length) for length in tokens.attention_mask_bs.sum(axis=1)]


@pytest.fixture(scope="module")
def probe(model: SmartBertForSequenceClassification) -> Probe:
    return record_probe(model, tokens_of([5, 2]))


def test_probe_holds_every_part(probe: Probe, model: SmartBertForSequenceClassification) -> None:
    assert probe.hidden_lbsh.shape == (LAYERS + 1, 2, 5, 32)
    assert probe.mask_b11s.tolist() == [[[[0.0] * 5]], [[[0.0, 0.0, -10000.0, -10000.0, -10000.0]]]]
    mask_b11s = torch.from_numpy(probe.mask_b11s)
    with torch.inference_mode():
        for index in range(LAYERS):
            input_bsh, output_bsh = (torch.from_numpy(probe.hidden_lbsh[index + step]) for step in (0, 1))
            torch.testing.assert_close(model.run_layer(index, input_bsh, mask_b11s), output_bsh)
            torch.testing.assert_close(
                model.gates[index](input_bsh, mask_b11s), torch.from_numpy(probe.skip_logit_lb[index])
            )
            torch.testing.assert_close(
                model.exits[index](output_bsh, mask_b11s), torch.from_numpy(probe.logits_lbc[index])
            )


def test_small_probes(
    model: SmartBertForSequenceClassification,
) -> None:
    single, batch = small_probes(model, tokens_of([9, 3, 20, 5, 12]))
    assert lengths_of(single) == [3] and single.input_ids_bs.shape == (1, 3)
    assert lengths_of(batch) == [3, 9, 20] and batch.input_ids_bs.shape == (3, 20)


def test_wide_probes() -> None:
    probes = wide_probes(tokens_of([4, 6]), 24)
    assert [lengths_of(probe) for probe in probes] == [[1], [2], [3], [8], [24], [1, 2, 3, 8, 24], [24, 1]]
    assert all(not probe.input_ids_bs[probe.attention_mask_bs == 0].any() for probe in probes)


def test_wide_probes_of_short_model() -> None:
    assert max(max(lengths_of(probe)) for probe in wide_probes(tokens_of([2]), 2)) == 2


@pytest.mark.parametrize("near", [0.0, 0.9e-4, -0.9e-4])
def test_near_exit_is_left_out(model: SmartBertForSequenceClassification, classifier: SmartBert, near: float) -> None:
    tokens = classifier.tokenizer.encode(SENTENCES)
    policy = Policy(exit_threshold=0.5)
    golden = record(model, [], tokens, policy)
    row = next(row for row, trace in enumerate(golden.traces) if not np.isnan(trace.uncertainty_l).all())
    uncertainty_l = golden.traces[row].uncertainty_l.copy()
    uncertainty_l[np.flatnonzero(~np.isnan(uncertainty_l))[0]] = 0.5 + near
    moved = (*golden.traces[:row], replace(golden.traces[row], uncertainty_l=uncertainty_l), *golden.traces[row + 1 :])
    kept = clear_calls(replace(golden, traces=moved), policy)
    assert clear_calls(golden, policy) == list(range(len(SENTENCES)))
    assert kept == [other for other in range(len(SENTENCES)) if other != row]


def test_near_skip_is_left_out(model: SmartBertForSequenceClassification, classifier: SmartBert) -> None:
    tokens = classifier.tokenizer.encode(SENTENCES)
    golden = record(model, [], tokens, Policy(exit_threshold=0.5))
    skip_logit = float(golden.traces[4].skip_logit_l[0])
    policy = Policy(exit_threshold=0.5, skip_threshold=1 / (1 + math.exp(-skip_logit)))
    assert 4 not in clear_calls(record(model, [], tokens, policy), policy)


def test_package_has_no_near_decision(package_dir: Path) -> None:
    package = open_package(package_dir)
    policy = package.manifest.golden.policy
    golden = read_golden(package)
    assert len(golden.traces) == len(SENTENCES) and policy.exit_threshold == 0.5
    for trace in golden.traces:
        distances = [abs(value) for value in trace.skip_logit_l if not np.isnan(value)]  # the logit of 0.5 is 0
        distances += [abs(value - 0.5) for value in trace.uncertainty_l if not np.isnan(value)]
        assert min(distances) > 1e-4


def test_package_records_skips_and_exits(package_dir: Path) -> None:
    traces = unpack((package_dir / "golden" / "expected.npz").read_bytes()).traces
    assert {1, 2, 3, 4} == {layer for trace in traces for layer in trace.layers_run}
    assert any(trace.layers_skipped for trace in traces) and any(not trace.layers_skipped for trace in traces)
    assert len({trace.exit_layer for trace in traces}) >= 3


def test_golden_samples_size(package_dir: Path) -> None:
    assert sum(file.stat().st_size for file in (package_dir / "golden").iterdir()) < 5 * MEGABYTE


@pytest.mark.parametrize("lengths", [[8, 12, 16, 25], [25, 60, 128], [100, 110, 128], [512, 512, 512]])
@pytest.mark.parametrize(("layers", "hidden"), [(6, 384), (12, 768), (24, 1024)])
def test_probe_size_of_real_encoder(layers: int, hidden: int, lengths: list[int]) -> None:
    config = BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=hidden // 64,
        vocab_size=10,
        intermediate_size=8,
    )
    with torch.device("meta"):
        model = SmartBertForSequenceClassification(SmartBertConfig(backbone_config=config.to_dict()))
    probes = small_probes(model, tokens_of(lengths))
    hidden_bytes = sum(probe.input_ids_bs.size for probe in probes) * (layers + 1) * hidden * 4
    assert hidden_bytes < 5 * MEGABYTE
