"""The whole evaluation of a checkpoint: quality, depth and MAC, and curves with gates off, exits off, and both on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from datasets import Dataset
from transformers import PreTrainedTokenizerFast

from smartbert.evaluation.curves import CurvePoint, Summary, curve_point, entropy_curve, patience_curve, summarize
from smartbert.evaluation.decisions import decide
from smartbert.evaluation.macs import plain_macs
from smartbert.evaluation.recording import Passes, mac_cost, record_passes
from smartbert.plain_classifier import PlainClassifier
from smartbert.trained_model import Classifier, backbone_config, has_gates
from smartbert_runtime.decisions.policy import Policy

# Skip thresholds at which the curve with exits off is measured; each takes a pass, because skips change what follows.
SKIP_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a checkpoint does on labeled texts; MAC are means per text at its real length, heads and gates counted.

    plain_macs: what a plainly fine-tuned classifier on the same encoder costs (all layers, mean pooling).
    summary, macs: with the given policy. full_depth, full_depth_macs: with early exits off.
    curves: name -> points. "both" and "gates off" over exit thresholds, "patience" over patiences (gates off),
    "exits off" over skip thresholds; a plain classifier has none.
    """

    texts: int
    mean_tokens: float
    layers: int
    plain_macs: float
    skip_threshold: float
    exit_threshold: float
    summary: Summary
    macs: float
    full_depth: Summary
    full_depth_macs: float
    curves: dict[str, tuple[CurvePoint, ...]]


def evaluate(
    model: Classifier,
    split: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    labels: Sequence[str],
    policy: Policy,
    *,
    skip_thresholds: Sequence[float] = SKIP_THRESHOLDS,
    batch_size: int = 32,
    tick: Callable[[int], None] = lambda texts: None,
) -> Evaluation:
    """Measure `model` on a tokenized split: one pass with gates on, one with gates off, one a skip threshold.

    tick: called with the number of texts done, 2 + len(skip_thresholds) times the split in all (once for a plain one).
    """
    passes = record_passes(
        model, split, tokenizer, policy, skip_thresholds=skip_thresholds, batch_size=batch_size, tick=tick
    )
    return evaluate_passes(model, passes, labels, policy)


def evaluate_passes(model: Classifier, passes: Passes, labels: Sequence[str], policy: Policy) -> Evaluation:
    """The evaluation of recorded passes, the first of which skipped as `policy` does."""
    tokens_r, recording = passes.tokens_r, passes.as_given
    never, gates_off = replace(policy, no_exit=True), replace(policy, no_skip=True)
    cost, no_exit_cost = mac_cost(model, tokens_r), mac_cost(model, tokens_r, exits=False)
    curves: dict[str, tuple[CurvePoint, ...]] = {}
    if not isinstance(model, PlainClassifier):
        if has_gates(model):
            curves["both"] = entropy_curve(recording, policy, cost)
        off_cost = mac_cost(model, tokens_r, gates=False)
        curves["gates off"] = entropy_curve(passes.gates_off, gates_off, off_cost)
        curves["patience"] = patience_curve(passes.gates_off, gates_off, off_cost)
        if passes.skipping:
            curves["exits off"] = tuple(
                curve_point(skipped, value, decide(skipped, replace(never, skip_threshold=value)), no_exit_cost)
                for value, skipped in passes.skipping.items()
            )
    return Evaluation(
        texts=len(tokens_r),
        mean_tokens=float(tokens_r.mean()),
        layers=int(backbone_config(model)["num_hidden_layers"]),
        plain_macs=float(plain_macs(backbone_config(model), len(labels), tokens_r).mean()),
        skip_threshold=policy.skip_threshold,
        exit_threshold=policy.exit_threshold,
        summary=summarize(recording, policy, labels),
        macs=float(cost(decide(recording, policy)).mean()),
        full_depth=summarize(recording, never, labels),
        full_depth_macs=float(no_exit_cost(decide(recording, never)).mean()),
        curves=curves,
    )
