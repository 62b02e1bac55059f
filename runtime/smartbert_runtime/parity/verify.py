"""Verify a package against PyTorch's recorded answers: every part on recorded inputs, then whole texts end to end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.engine.run import run_layout
from smartbert_runtime.errors import ParityError
from smartbert_runtime.package.manifest import SINGLE, Component
from smartbert_runtime.package.open import Package
from smartbert_runtime.parity.compare import DecisionReport, Difference, compare_traces, difference
from smartbert_runtime.parity.golden import Golden, Probe
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.sessions.sessions import Sessions
from smartbert_runtime.tokenizer import Tokens
from smartbert_runtime.trace import Trace

# How far an fp32 part's output may be from PyTorch's on the same input. Both sum the same products in different
# orders, so the error grows with the size of the numbers: a tolerance is a share of the largest expected one
# (at least of 1). Measured on the demo's 19 parts, as such shares: correct parts differ by 1.9e-6 at most, 1 % on any
# one of their 93 weight matrices by 8.8e-5 at least (.ci/check_damage.py).
PART_TOLERANCE = 4e-6

# A block is a layer and the heads that read its output: two such errors one after the other.
BLOCK_TOLERANCE = 2e-5
# Root mean square error of a quantized part's outputs, as a share of their size. An export refuses a part from 0.25 on
# its check texts on; the probes' texts of one token are none that a range was recorded for. This catches a part that
# was exchanged, and the hashes finer damage.
QUANTIZED_TOLERANCE = {"int8": 0.4, "int4": 0.5}

BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class PartCheck:
    """One part against PyTorch: its worst probe; of a quantized part, shares by root mean square over all probes."""

    part: str
    difference: Difference


@dataclass(frozen=True, kw_only=True)
class TextsCheck:
    """Whole texts against PyTorch. mode: how they were run, one by one or in batches."""

    mode: str
    decisions: DecisionReport


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """All comparisons; `first_failure` names the first part, or the first mode of running texts, that differs."""

    variant: str
    oracle: str
    parts: tuple[PartCheck, ...]
    texts: tuple[TextsCheck, ...]

    @property
    def first_failure(self) -> str | None:
        """Its name; None when nothing differs."""
        for part in self.parts:
            if not part.difference.ok:
                return part.part
        for texts in self.texts:
            if not texts.decisions.ok:
                return texts.mode
        return None


def check_files(package: Package) -> int:
    """Hash every file that the manifest names, and policy.json; IntegrityError for one that differs.

    Returns how many files the manifest names.
    """
    entries = package.manifest.files()
    for entry in entries:
        package.read(entry)
    package.policies()
    return len(entries)


def verify(
    sessions: Sessions,
    golden: Golden,
    policy: Policy,
    *,
    oracle: str,
    part: str | None = None,
    reporter: Reporter = SILENT,
) -> VerifyReport:
    """Compare the package with recorded answers; `part` restricts to one part, `reporter` gets a step for each part.

    Texts are run one by one, and in padded batches of mixed lengths: both must decide as the recording did.
    """
    manifest = sessions.package.manifest
    if part is not None:
        manifest.component(part)  # a named error for a part that does not exist
    components = manifest.in_variant(sessions.variant.name)
    # The layout `single` is one graph, which is checked as a whole.
    names = [c.name for c in components if part in (None, c.name) and c.role != "model"]
    checks = []
    for name in names:
        reporter.step(f"checking {name} ({sessions.variant.name})")
        checks.append(_check_part(sessions, name, golden))
    texts: list[TextsCheck] = []
    whole = part is None or manifest.component(part).role == "model"
    if whole and golden.traces:
        modes = {"texts one by one": 1, f"texts in batches of {BATCH_SIZE}": BATCH_SIZE}
        if sessions.variant.layout == SINGLE:
            modes = {"model.onnx, text by text": 1}
        exact = sessions.variant.precision == "fp32"
        for mode, batch_size in modes.items():
            traces = _run(sessions, golden.tokens, policy, batch_size=batch_size)
            texts.append(TextsCheck(mode=mode, decisions=compare_traces(golden.traces, traces, policy, exact=exact)))
    return VerifyReport(variant=sessions.variant.name, oracle=oracle, parts=tuple(checks), texts=tuple(texts))


def require_parity(report: VerifyReport) -> VerifyReport:
    """The same report, or ParityError naming the first thing that differs."""
    failure = report.first_failure
    if failure is None:
        return report
    for check in report.parts:
        if check.part == failure:
            raise ParityError(
                f"{failure} differs from {report.oracle}: {check.difference.max_abs:.2e} where "
                f"{check.difference.tolerance:.1e} is allowed",
                report=report,
                hint="the weights are not those that were exported, or this onnxruntime computes them wrongly; "
                "export again, and try --provider CPUExecutionProvider",
            )
    raise ParityError(
        f"{failure}: answers differ from {report.oracle}, or too many decisions are too close to compare, "
        "although every part agrees",
        report=report,
        hint="the report lists the texts; smartbert-verify --format json prints all of it",
    )


def _check_part(sessions: Sessions, name: str, golden: Golden) -> PartCheck:
    component = sessions.package.manifest.component(name)
    if (share := QUANTIZED_TOLERANCE.get(_precision(sessions, name))) is not None:
        return PartCheck(part=name, difference=_quantized_difference(sessions, component, golden, share))
    tolerance = BLOCK_TOLERANCE if component.role == "block" else PART_TOLERANCE
    worst: Difference | None = None
    for probe in golden.probes:
        feeds, expected = _probe_io(probe, component)
        outputs = sessions.run(name, feeds)
        for wanted, output in zip(expected, outputs, strict=True):
            scale = max(1.0, float(np.abs(wanted[np.abs(wanted) < 1000.0]).max(initial=0.0)))
            found = difference(wanted, output, tolerance * scale)
            if worst is None or found.max_abs / found.tolerance > worst.max_abs / worst.tolerance:
                worst = found
    assert worst is not None  # golden samples hold at least one probe
    return PartCheck(part=name, difference=worst)


def _quantized_difference(sessions: Sessions, component: Component, golden: Golden, share: float) -> Difference:
    """Root mean square errors over all probes as shares of the outputs' own size: the largest and their mean."""
    squares = np.zeros((len(component.outputs), 2))  # of the errors, of the outputs
    for probe in golden.probes:
        feeds, expected = _probe_io(probe, component)
        for row, (wanted, output) in enumerate(zip(expected, sessions.run(component.name, feeds), strict=True)):
            if wanted.shape != output.shape or not np.isfinite(output).all():
                return Difference(max_abs=np.inf, mean_abs=np.inf, tolerance=share)
            meant = np.abs(wanted) < 1000.0  # not the additive mask
            squares[row] += (
                np.square(wanted - output, where=meant, out=np.zeros(wanted.shape)).sum(),
                (np.square(wanted, where=meant, out=np.zeros(wanted.shape)).sum()),
            )
    shares = np.sqrt(squares[:, 0] / np.maximum(squares[:, 1], 1e-12))
    return Difference(max_abs=float(shares.max()), mean_abs=float(shares.mean()), tolerance=share)


def _precision(sessions: Sessions, name: str) -> str:
    """Of the part's file: a part that stayed fp32 is fp32 in every variant."""
    return sessions.package.manifest.component(name).files[sessions.variant.name].file.split(".")[1]


def _probe_io(
    probe: Probe, component: Component
) -> tuple[Mapping[str, NDArray[np.generic]], tuple[NDArray[np.float32], ...]]:
    """A part's feeds, and PyTorch's outputs for them."""
    index = component.index
    if component.role == "embeddings":
        return probe.tokens.feeds(), (probe.hidden_lbsh[0], probe.mask_b11s)
    feeds = {"hidden": probe.hidden_lbsh[index if component.role == "exit" else index - 1], "mask": probe.mask_b11s}
    # A gate part is the one before its layer; a block holds the next layer's gate.
    gate = index if component.role == "block" else index - 1
    outputs = {
        "hidden_next": lambda: probe.hidden_lbsh[index],
        "logits": lambda: probe.logits_lbc[index - 1],
        "skip_logit": lambda: probe.skip_logit_lb[gate],
    }
    return feeds, tuple(outputs[output.name]() for output in component.outputs)


def _run(sessions: Sessions, tokens: Tokens, policy: Policy, *, batch_size: int) -> list[Trace]:
    """Traces of all rows, batch by batch in the given order; a batch of one has no padding, as on an edge device."""
    traces: list[Trace] = []
    for start in range(0, len(tokens.truncated), batch_size):
        batch = tokens.rows(range(start, min(start + batch_size, len(tokens.truncated))))
        traces += [outcome.trace for outcome in run_layout(sessions, batch, policy)]
    return traces
