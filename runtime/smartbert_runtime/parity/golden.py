"""Golden samples: inputs with PyTorch's answers, recorded at export, replayed by smartbert-verify.

Shape letters: p probes (batches), b batch, s sequence, h hidden, c classes, l layers, r rows (texts).
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.errors import ManifestError
from smartbert_runtime.package.open import Package
from smartbert_runtime.tokenizer import Tokens
from smartbert_runtime.trace import Trace


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One batch that ran through every part, no layer skipped: hidden_lbsh[i] is the input of layer i+1 and gate i+1.

    For gates that the model lacks, skip_logit_lb is -inf; for exit heads that it lacks, logits_lbc is NaN.
    """

    tokens: Tokens
    mask_b11s: NDArray[np.float32]
    hidden_lbsh: NDArray[np.float32]
    skip_logit_lb: NDArray[np.float32]
    logits_lbc: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Probes of each part, and whole texts with their traces under the policy in the manifest."""

    probes: tuple[Probe, ...]
    tokens: Tokens
    traces: tuple[Trace, ...]


def pack(golden: Golden) -> bytes:
    """The bytes of expected.npz; equal samples give equal bytes."""
    arrays: dict[str, NDArray[np.generic]] = {}
    for number, probe in enumerate(golden.probes):
        place = f"probe_{number:03d}/"
        arrays |= _token_arrays(place, probe.tokens)
        arrays |= {
            place + "mask": probe.mask_b11s,
            place + "hidden": probe.hidden_lbsh,
            place + "skip_logit": probe.skip_logit_lb,
            place + "logits": probe.logits_lbc,
        }
    layers = np.arange(1, len(golden.traces[0].skip_logit_l) + 1)
    arrays |= _token_arrays("texts/", golden.tokens)
    arrays |= {
        "texts/run": np.array([np.isin(layers, trace.layers_run) for trace in golden.traces]),
        "texts/skipped": np.array([np.isin(layers, trace.layers_skipped) for trace in golden.traces]),
        "texts/exit_layer": np.array([trace.exit_layer for trace in golden.traces]),
        "texts/logits": np.array([trace.logits_c for trace in golden.traces]),
        "texts/skip_logit": np.array([trace.skip_logit_l for trace in golden.traces]),
        "texts/entropy": np.array([trace.uncertainty_l for trace in golden.traces]),
    }
    stream = io.BytesIO()
    # numpy stamps its zip entries with 1980, so the bytes depend on nothing but the arrays.
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def unpack(content: bytes) -> Golden:
    """Golden samples from the bytes of expected.npz; ManifestError when they are damaged."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        numbers = sorted({name.split("/")[0] for name in arrays if name.startswith("probe_")})
        return Golden(
            probes=tuple(_probe(arrays, f"{number}/") for number in numbers),
            tokens=_tokens(arrays, "texts/"),
            traces=tuple(_trace(arrays, row) for row in range(len(arrays["texts/exit_layer"]))),
        )
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error) as err:
        raise ManifestError(f"the golden samples cannot be read: {err}", hint="export again") from err


def read_golden(package: Package) -> Golden:
    """The golden samples of a package, their hash checked."""
    return unpack(package.read(package.manifest.golden.expected))


def _probe(arrays: Mapping[str, NDArray[np.float32]], place: str) -> Probe:
    return Probe(
        tokens=_tokens(arrays, place),
        mask_b11s=arrays[place + "mask"],
        hidden_lbsh=arrays[place + "hidden"],
        skip_logit_lb=arrays[place + "skip_logit"],
        logits_lbc=arrays[place + "logits"],
    )


def _trace(arrays: Mapping[str, NDArray[np.float32]], row: int) -> Trace:
    return Trace(
        layers_run=tuple((np.flatnonzero(arrays["texts/run"][row]) + 1).tolist()),
        layers_skipped=tuple((np.flatnonzero(arrays["texts/skipped"][row]) + 1).tolist()),
        exit_layer=int(arrays["texts/exit_layer"][row]),
        logits_c=arrays["texts/logits"][row],
        skip_logit_l=arrays["texts/skip_logit"][row].astype(np.float64),
        uncertainty_l=arrays["texts/entropy"][row].astype(np.float64),
    )


def _token_arrays(place: str, tokens: Tokens) -> dict[str, NDArray[np.generic]]:
    return {place + name: array.astype(np.int32) for name, array in tokens.feeds().items()}


def _tokens(arrays: Mapping[str, NDArray[np.float32]], place: str) -> Tokens:
    ids, mask, types = (
        arrays[place + name].astype(np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    return Tokens(input_ids_bs=ids, attention_mask_bs=mask, token_type_ids_bs=types, truncated=(False,) * len(ids))
