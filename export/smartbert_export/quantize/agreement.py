"""By which scheme each part may be quantized: each one alone, then all together, against fp32 on the same texts.

A part is judged by what users lose: the accuracy lost under the package's policy, and at the exit head that reads the
part's output on all texts, also those that would have left earlier; all parts together under the policy and at full
depth. The largest loss counts, and fails only where it is above the tolerance beyond doubt. A part that fails gets the
next scheme, at last fp32. Speed never decides what is exported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from smartbert_export.graphs.cut import CutParts
from smartbert_export.parts.signatures import Part
from smartbert_export.quantize.check_texts import CheckTexts
from smartbert_export.quantize.losses import LossEstimate, estimate_loss
from smartbert_export.quantize.mixed_parts import FolderParts, MixedParts
from smartbert_export.quantize.trial_runs import Comparison, ReferenceBatch, Runner
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.part_names import EXIT
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.tokenizer import batches_by_length

# Accuracy that may be lost, as a share of the texts: by one part alone, and by all of them.
MAX_LOSS_ALONE, MAX_LOSS_TOGETHER = 0.0025, 0.005
# Error of a part's outputs, as a share of their size: a part this far off is wrong, whatever the texts' labels say.
MAX_ERROR = 0.25
TOO_FAR = f"its outputs are more than {MAX_ERROR:.0%} off"
ALONE = f"loses more than {MAX_LOSS_ALONE:.2%} accuracy alone"
TOGETHER = f"all together lose more than {MAX_LOSS_TOGETHER:.2%} accuracy, this one the most"
BATCH_SIZE = 32
# Batches on which the error of a part's outputs is measured, to choose between schemes of one rank.
ERROR_BATCHES = 4


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """loss: accuracy lost; shares of the texts that keep their label, and that leave at the same exit under the policy.

    error: of the part's outputs, as a share of their size; 0 for parts together.
    scheme: by which the part was quantized; empty for parts together.
    """

    loss: LossEstimate
    labels: float
    exit_layers: float
    error: float = 0.0
    scheme: str = ""


@dataclass(frozen=True, kw_only=True)
class QuantizationReport:
    """One precision of one set of parts.

    texts: how many were compared; labeled: whether losses are those of labels, or of fp32's own probabilities.
    alone: each part's agreement with only that part quantized, by the last scheme that was tried.
    schemes: the scheme of each part that is quantized. refused: parts that stay fp32, with the reason.
    together: the agreement of all that are quantized.
    """

    precision: str
    texts: int
    labeled: bool
    alone: Mapping[str, Agreement]
    schemes: Mapping[str, str]
    refused: Mapping[str, str]
    together: Agreement


class Candidates:
    """The graphs to choose from: `folder`/SCHEME/NAME.onnx, and for each part the schemes in order.

    schemes: of schemes in one tuple, the one with the smallest error is tried.
    """

    def __init__(self, folder: Path, schemes: Mapping[str, tuple[tuple[str, ...], ...]]) -> None:
        self.folder, self.schemes = folder, schemes

    def file(self, part: str, scheme: str) -> Path:
        """The graph of a part by one scheme."""
        return self.folder / scheme_folder(scheme) / f"{part}.onnx"


def scheme_folder(scheme: str) -> str:
    """A scheme's name as that of a folder."""
    return scheme.replace(",", "").replace(" ", "-")


def check_quantized(
    cut: CutParts,
    candidates: Candidates,
    parts: Sequence[Part],
    texts: CheckTexts,
    policy: Policy,
    *,
    precision: str,
    fused: bool,
    known: Mapping[str, Agreement] = MappingProxyType({}),
    reporter: Reporter = SILENT,
) -> QuantizationReport:
    """Choose the scheme of each of one layout's `parts`, or refuse it, on `texts`.

    known: agreement of parts that were compared already, for another layout that has them too.
    """
    trial = _Trial(cut, candidates, parts, texts, policy, precision=precision, fused=fused, reporter=reporter)
    trial.judge_alone(known)
    together = trial.judge_together()
    return QuantizationReport(
        precision=precision,
        texts=len(texts),
        labeled=texts.label_ids_r is not None,
        alone={part.name: trial.alone[part.name] for part in parts},
        schemes={part.name: trial.chosen[part.name] for part in parts if part.name in trial.chosen},
        refused=trial.refused,
        together=together,
    )


class _Trial:
    """chosen: the scheme of each part that is not refused; left: the schemes that each part may fall back to."""

    def __init__(
        self,
        cut: CutParts,
        candidates: Candidates,
        parts: Sequence[Part],
        texts: CheckTexts,
        policy: Policy,
        *,
        precision: str,
        fused: bool,
        reporter: Reporter,
    ) -> None:
        self._parts, self._precision, self._reporter = parts, precision, reporter
        self._runner = Runner(
            policy=policy,
            layers=cut.config.layers,
            classes=cut.config.num_labels,
            fused=fused,
            heads={part.index for part in parts if part.role == EXIT},
        )
        self._fp32 = FolderParts(cut.folder, parts, cut.config, cut.fixed_shape)
        every = {scheme for ranks in candidates.schemes.values() for rank in ranks for scheme in rank}
        self._quantized = {
            scheme: FolderParts(candidates.folder / scheme_folder(scheme), parts, cut.config, cut.fixed_shape)
            for scheme in every
        }
        self._batches = _batches(texts)
        self._left = {part.name: list(candidates.schemes[part.name]) for part in parts}
        self.chosen: dict[str, str] = {}
        self.alone: dict[str, Agreement] = {}
        self.refused: dict[str, str] = {}

    def judge_alone(self, known: Mapping[str, Agreement]) -> None:
        """Each part by itself, and by its next scheme where it failed, until none is left to try."""
        for part in self._parts:
            if part.name in known:
                self.alone[part.name] = known[part.name]
                self._accept(part.name, known[part.name].scheme)
                if reason := _why_not(known[part.name]):
                    self._fall_back(part.name, reason)
        self._choose_next([part for part in self._parts if part.name not in known])
        waiting = [part for part in self._parts if part.name not in known]
        while waiting:
            self.alone |= self._compare_alone(waiting)
            waiting = [part for part in waiting if _why_not(self.alone[part.name])]
            for part in waiting:
                self._fall_back(part.name, _why_not(self.alone[part.name]))
            waiting = [part for part in waiting if part.name in self.chosen]
            self._choose_next(waiting)

    def judge_together(self) -> Agreement:
        """All chosen parts; while they lose too much, the one that loses most alone falls back."""
        references = [self._runner.decide_twice(self._fp32, batch.tokens) for batch in self._batches]
        while True:
            mixed = MixedParts(self._fp32, {name: self._quantized[scheme] for name, scheme in self.chosen.items()})
            found = _agreement(
                [
                    reference.compare(self._runner.decide_twice(mixed, batch.tokens), batch.label_ids_r)
                    for batch, reference in zip(self._batches, references, strict=True)
                ]
            )
            if not self.chosen or found.loss.lower <= MAX_LOSS_TOGETHER:
                return found
            worst = max(self.chosen, key=lambda name: (self.alone[name].loss.mean, -self.alone[name].labels, name))
            self._fall_back(worst, TOGETHER)
            changed = [part for part in self._parts if part.name == worst and worst in self.chosen]
            if changed:
                self._choose_next(changed)
                self.alone |= self._compare_alone(changed)

    def _accept(self, name: str, scheme: str) -> None:
        self.chosen[name] = scheme
        while self._left[name] and scheme not in self._left[name].pop(0):
            pass

    def _fall_back(self, name: str, reason: str) -> None:
        """Refuse the part where no scheme is left."""
        if not self._left[name]:
            del self.chosen[name]
            self.refused[name] = reason

    def _choose_next(self, parts: Sequence[Part]) -> None:
        """The next scheme of each of these parts: of several, the one whose outputs are nearest to fp32's."""
        undecided = [part for part in parts if len(self._left[part.name][0]) > 1]
        errors: dict[tuple[str, str], float] = {}
        if undecided:
            for batch in self._batches[:: max(1, len(self._batches) // ERROR_BATCHES)]:
                self._reporter.step(f"measuring the error of {self._precision} parts")
                reference = ReferenceBatch(self._runner, self._fp32, batch)
                for part in undecided:
                    for scheme in self._left[part.name][0]:
                        error = reference.error(self._quantized[scheme], part)
                        errors[part.name, scheme] = errors.get((part.name, scheme), 0.0) + error
        for part in parts:
            rank = self._left[part.name].pop(0)
            self.chosen[part.name] = min(rank, key=lambda scheme: errors.get((part.name, scheme), 0.0))
            for scheme in set(rank) - {self.chosen[part.name]}:
                self._quantized[scheme].close(part.name)

    def _compare_alone(self, parts: Sequence[Part]) -> dict[str, Agreement]:
        comparisons: dict[str, list[Comparison]] = {part.name: [] for part in parts}
        for number, batch in enumerate(self._batches, start=1):
            self._reporter.step(f"comparing {self._precision} parts with fp32, batch {number} of {len(self._batches)}")
            reference = ReferenceBatch(self._runner, self._fp32, batch)
            for part in parts:
                folder = self._quantized[self.chosen[part.name]]
                mixed = MixedParts(self._fp32, {part.name: folder})
                comparisons[part.name].append(reference.compare(mixed, part))
        return {name: _agreement(compared, self.chosen[name]) for name, compared in comparisons.items()}


def _batches(texts: CheckTexts) -> list[CheckTexts]:
    lengths = texts.tokens.attention_mask_bs.sum(axis=1).tolist()
    return [
        CheckTexts(
            tokens=texts.tokens.rows(rows),
            label_ids_r=None if texts.label_ids_r is None else texts.label_ids_r[rows],
        )
        for rows in batches_by_length(lengths, BATCH_SIZE)
    ]


def _agreement(compared: Sequence[Comparison], scheme: str = "") -> Agreement:
    """Over all batches; of the views, the loss that is surest to be large, and the smallest share of equal labels."""
    losses_vr = np.concatenate([one.losses_vb for one in compared], axis=1)
    labels = np.concatenate([one.labels_vb for one in compared], axis=1).mean(axis=1).min()
    exit_layers = np.concatenate([one.exit_layers_b for one in compared]).mean()
    worst = max((estimate_loss(losses_r) for losses_r in losses_vr), key=lambda loss: loss.lower)
    return Agreement(
        loss=worst,
        labels=float(labels),
        exit_layers=float(exit_layers),
        error=max(one.error for one in compared),
        scheme=scheme,
    )


def _why_not(alone: Agreement) -> str:
    """Why a part may not be quantized by this scheme; empty where it may."""
    if alone.loss.lower > MAX_LOSS_ALONE:
        return ALONE
    return TOO_FAR if alone.error > MAX_ERROR else ""
