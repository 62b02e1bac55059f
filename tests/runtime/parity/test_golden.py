"""parity.golden: a round trip, equal bytes for equal samples, and named errors for damaged files."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from smartbert.modeling import SmartBertForSequenceClassification
from smartbert.reference import trace_rows
from smartbert_runtime.errors import IntegrityError, ManifestError
from smartbert_runtime.package.open import open_package
from smartbert_runtime.parity.golden import Golden, Probe, pack, read_golden, unpack
from smartbert_runtime.tokenizer import Tokens
from smartbert_runtime.trace import Trace
from tests.conftest import SENTENCES
from tests.package_folders import flip_byte

LAYERS, CLASSES, HIDDEN = 3, 2, 4


def make_tokens(rows: int, longest: int) -> Tokens:
    """Row r holds longest - r tokens."""
    mask_bs = (np.arange(longest) < longest - np.arange(rows)[:, None]).astype(np.int64)
    ids_bs = mask_bs * np.arange(100, 100 + longest)
    return Tokens(
        input_ids_bs=ids_bs,
        attention_mask_bs=mask_bs,
        token_type_ids_bs=mask_bs * (np.arange(longest) > 1),
        truncated=(False,) * rows,
    )


def make_probe(seed: int) -> Probe:
    values = np.random.default_rng(seed)
    tokens = make_tokens(2, 3)
    return Probe(
        tokens=tokens,
        mask_b11s=((1 - tokens.attention_mask_bs) * -10000.0).astype(np.float32)[:, None, None, :],
        hidden_lbsh=values.normal(size=(LAYERS + 1, 2, 3, HIDDEN)).astype(np.float32),
        skip_logit_lb=values.normal(size=(LAYERS, 2)).astype(np.float32),
        logits_lbc=values.normal(size=(LAYERS, 2, CLASSES)).astype(np.float32),
    )


def make_trace(layers_run: tuple[int, ...], layers_skipped: tuple[int, ...], exit_layer: int) -> Trace:
    return Trace(
        layers_run=layers_run,
        layers_skipped=layers_skipped,
        exit_layer=exit_layer,
        logits_c=np.array([1.5, -exit_layer], dtype=np.float32),
        skip_logit_l=np.array([0.1, -0.2, np.nan]),
        uncertainty_l=np.array([1.0 / 3.0, np.nan, np.nan]),
    )


def make_golden(probes: int = 2) -> Golden:
    return Golden(
        probes=tuple(make_probe(seed) for seed in range(probes)),
        tokens=make_tokens(3, 4),
        traces=(make_trace((1,), (), 1), make_trace((2,), (1, 3), 3), make_trace((), (1, 2, 3), 3)),
    )


def assert_same_tokens(one: Tokens, other: Tokens) -> None:
    for name, array in one.feeds().items():
        assert array.dtype == np.int64
        assert np.array_equal(array, other.feeds()[name]), name


def assert_same_probe(one: Probe, other: Probe) -> None:
    assert_same_tokens(one.tokens, other.tokens)
    for name in ("mask_b11s", "hidden_lbsh", "skip_logit_lb", "logits_lbc"):
        array = getattr(one, name)
        assert array.dtype == np.float32
        assert np.array_equal(array, getattr(other, name)), name


# From eleven on, "probe_10" sorts before "probe_2" as a word.
@pytest.mark.parametrize("probes", [1, 2, 12])
def test_round_trip_keeps_order(probes: int) -> None:
    golden = make_golden(probes)
    found = unpack(pack(golden))
    assert_same_tokens(found.tokens, golden.tokens)
    assert len(found.probes) == probes
    for one, other in zip(found.probes, golden.probes, strict=True):
        assert_same_probe(one, other)
    assert [trace.decisions() for trace in found.traces] == [((1,), (), 1), ((2,), (1, 3), 3), ((), (1, 2, 3), 3)]
    for found_trace, trace in zip(found.traces, golden.traces, strict=True):
        for name in ("logits_c", "skip_logit_l", "uncertainty_l"):
            one, other = getattr(found_trace, name), getattr(trace, name)
            assert one.dtype == other.dtype
            assert np.array_equal(one, other, equal_nan=True), name


def test_equal_samples_equal_bytes() -> None:
    assert pack(make_golden()) == pack(make_golden())
    golden = make_golden()
    turned = replace(golden, traces=(replace(golden.traces[0], exit_layer=2), *golden.traces[1:]))
    assert pack(turned) != pack(golden)


def without(name: str) -> bytes:
    """The packed samples with one array left out."""
    with np.load(io.BytesIO(pack(make_golden()))) as file:
        arrays = {key: file[key] for key in file.files if key != name}
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def single_array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an archive",
        pack(make_golden())[:300],
        single_array(),
        without("probe_001/hidden"),
        without("texts/run"),
    ],
    ids=["empty", "not an archive", "cut short", "a single array", "without a probe's array", "without texts"],
)
def test_damaged_samples_are_refused(content: bytes) -> None:
    with pytest.raises(ManifestError, match="golden samples cannot be read") as caught:
        unpack(content)
    assert caught.value.hint == "export again"


def test_package_holds_oracle_traces(package_dir: Path, model: SmartBertForSequenceClassification) -> None:
    package = open_package(package_dir)
    golden = read_golden(package)
    expected = trace_rows(model, golden.tokens, package.manifest.golden.policy)
    assert len(golden.traces) == len(SENTENCES)
    assert [trace.decisions() for trace in golden.traces] == [trace.decisions() for trace in expected]
    assert (package_dir / "golden" / "expected.npz").stat().st_size < 5_000_000


def test_changed_samples_file(package_copy: Path) -> None:
    flip_byte(package_copy / "golden" / "expected.npz", 400)
    with pytest.raises(IntegrityError, match=r"golden/expected\.npz does not match the manifest"):
        read_golden(open_package(package_copy))
