"""Which parts may be quantized: each one alone, then all together, against fp32 on the same texts.

The labels of a part are compared under the package's policy, and at the exit head that reads the part's output on all
texts, also those that would have left earlier; those of all parts together under the policy and at full depth. The
smallest share counts. Speed never decides what is exported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np

from smartbert_export.graphs.cut import CutParts
from smartbert_export.parts.signatures import Part
from smartbert_export.quantize.mixed_parts import FolderParts, MixedParts
from smartbert_export.quantize.trial_runs import Comparison, ReferenceBatch, Runner
from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.package.part_names import EXIT
from smartbert_runtime.reporting import SILENT, Reporter
from smartbert_runtime.tokenizer import Tokens

# Least share of labels as in fp32: with one part quantized, and with all of them.
MIN_ALONE, MIN_TOGETHER = 0.99, 0.98
BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Shares of the texts that keep their label, and that leave at the same exit under the policy."""

    labels: float
    exit_layers: float


@dataclass(frozen=True, kw_only=True)
class QuantizationReport:
    """One precision of one set of parts.

    texts: how many were compared. alone: each part's agreement with only that part quantized. refused: parts that stay
    fp32, with the reason. together: the agreement of all others quantized.
    """

    precision: str
    texts: int
    alone: Mapping[str, Agreement]
    refused: Mapping[str, str]
    together: Agreement


def check_quantized(
    cut: CutParts,
    candidates: Path,
    parts: Sequence[Part],
    tokens: Tokens,
    policy: Policy,
    *,
    precision: str,
    fused: bool,
    known: Mapping[str, Agreement] = MappingProxyType({}),
    reporter: Reporter = SILENT,
) -> QuantizationReport:
    """Decide which of one layout's `parts` may be quantized, on the texts `tokens`.

    candidates: folder with NAME.onnx of every part, quantized. known: agreement of parts that were compared already,
    for another layout that has them too.
    """
    runner = Runner(
        policy=policy,
        layers=cut.config.layers,
        classes=cut.config.num_labels,
        fused=fused,
        heads={part.index for part in parts if part.role == EXIT},
    )
    fp32, quantized = (FolderParts(folder, parts, cut.config, cut.fixed_shape) for folder in (cut.folder, candidates))
    comparisons: dict[str, list[Comparison]] = {part.name: [] for part in parts if part.name not in known}
    batches = _batches_by_length(tokens)
    references = []
    for number, batch in enumerate(batches, start=1):
        reporter.step(f"comparing {precision} parts with fp32, batch {number} of {len(batches)}")
        reference = ReferenceBatch(runner, MixedParts(fp32, quantized), batch)
        references.append(reference.decisions)
        for part in parts:
            if part.name not in known:
                comparisons[part.name].append(reference.compare(MixedParts(fp32, quantized, {part.name}), part))
    alone = {name: _agreement(compared) for name, compared in comparisons.items()} | dict(known)
    refused = {name: f"alone under {MIN_ALONE:.0%}" for name, found in alone.items() if found.labels < MIN_ALONE}
    while True:
        kept = {part.name for part in parts} - set(refused)
        mixed = MixedParts(fp32, quantized, kept)
        together = _agreement(
            [
                runner.decide_twice(mixed, batch).compare(decisions)
                for batch, decisions in zip(batches, references, strict=True)
            ]
        )
        if together.labels >= MIN_TOGETHER or not kept:
            break
        worst = min(kept, key=lambda name: (alone[name].labels, name))
        refused[worst] = f"together under {MIN_TOGETHER:.0%}"
    return QuantizationReport(
        precision=precision, texts=len(tokens.truncated), alone=alone, refused=refused, together=together
    )


def _batches_by_length(tokens: Tokens) -> list[Tokens]:
    order = np.argsort(tokens.attention_mask_bs.sum(axis=1), kind="stable").tolist()
    return [tokens.rows(order[start : start + BATCH_SIZE]) for start in range(0, len(order), BATCH_SIZE)]


def _agreement(compared: Sequence[Comparison]) -> Agreement:
    """Over all batches; of the labels, the smallest share of any view."""
    labels = np.concatenate([one.labels_vb for one in compared], axis=1).mean(axis=1).min()
    exit_layers = np.concatenate([one.exit_layers_b for one in compared]).mean()
    return Agreement(labels=float(labels), exit_layers=float(exit_layers))
