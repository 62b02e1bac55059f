"""A checkpoint's figures on the dev texts, in the form in which a run's file keeps them.

Shape letters: r rows (texts).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from smartbert.backbones import read_backbone_config
from smartbert.checkpoint_folder import REPORT_FILE, load_classifier
from smartbert.data.splits import TaskData
from smartbert.evaluation.curves import SAVINGS, CurvePoint, bracket
from smartbert.evaluation.decisions import Recording, decide
from smartbert.evaluation.evaluate import SKIP_THRESHOLDS, evaluate_passes
from smartbert.evaluation.macs import plain_macs
from smartbert.evaluation.recording import record_passes, tokenize
from smartbert.trained_model import input_limit, policy_of
from smartbert_runtime.decisions.policy import Policy

# A curve point in a run's file: the fields of CurvePoint in order, macs as a share of plain fine-tuning's.
CURVE_COLUMNS = tuple(column.name for column in fields(CurvePoint))


def dev_figures(checkpoint: Path, data: TaskData, encoder: str) -> dict[str, Any]:
    """Every curve of the checkpoint on the dev texts, and which texts are correct at SAVINGS and at full depth.

    MAC shares refer to a plain classifier on the whole encoder, even where the checkpoint has fewer layers.
    """
    report = json.loads((checkpoint / REPORT_FILE).read_text(encoding="utf-8"))
    model, tokenizer = load_classifier(checkpoint)
    split = tokenize(data.dev, tokenizer, input_limit(model, tokenizer))
    policy = policy_of(model)
    passes = record_passes(model, split, tokenizer, policy, skip_thresholds=SKIP_THRESHOLDS)
    evaluation = evaluate_passes(model, passes, data.labels, policy)
    whole = read_backbone_config(encoder)
    plain = float(plain_macs(whole, len(data.labels), passes.tokens_r).mean())
    at: dict[str, dict[str, Any]] = {}
    for name in ("both", "gates off", "patience"):
        if name in evaluation.curves:
            recording = passes.as_given if name == "both" else passes.gates_off
            at[name] = _at_savings(recording, name, evaluation.curves[name], plain, policy)
    counts = Counter(data.labels[number] for number in data.dev.label_ids)
    return {
        "texts": {"train": len(data.train), "validation": len(data.validation), "dev": len(data.dev)},
        "dev_labels": {label: counts[label] for label in data.labels},
        "layers": evaluation.layers,
        "encoder_layers": int(whole["num_hidden_layers"]),
        "mean_tokens": round(evaluation.mean_tokens, 2),
        "plain_macs": round(plain),
        "validation": report["validation"],
        "exit_threshold": evaluation.exit_threshold,
        "skip_threshold": evaluation.skip_threshold,
        "configured": {**asdict(evaluation.summary), "mac_share": evaluation.macs / plain},
        "full_depth": {**asdict(evaluation.full_depth), "mac_share": evaluation.full_depth_macs / plain},
        "curves": {name: _rows(points, plain) for name, points in evaluation.curves.items()},
        "right": {"full depth": _correct(passes.as_given, "entropy", policy, 0.0)},
        "at": at,
    }


def _at_savings(
    recording: Recording, name: str, points: tuple[CurvePoint, ...], plain: float, policy: Policy
) -> dict[str, Any]:
    """For each saving the two nearest points of the curve: settings, correct texts, the weight of the costlier one."""
    rule = "patience" if name == "patience" else "entropy"
    rest = Policy(skip_threshold=policy.skip_threshold, no_skip=name != "both")
    found: dict[str, Any] = {}
    for saving in SAVINGS:
        place = bracket(points, plain / saving)
        if place is not None:
            cheap, costly, share = place
            found[f"{saving:g}"] = {
                "values": [round(points[index].value, 8) for index in (cheap, costly)],
                "right": [_correct(recording, rule, rest, points[index].value) for index in (cheap, costly)],
                "share": round(share, 6),
            }
    return found


def _correct(recording: Recording, rule: str, policy: Policy, value: float) -> str:
    """One digit per text: 1 where the answer is correct."""
    if rule == "patience":
        decisions = decide(recording, replace(policy, rule="patience", patience=int(value)))
    else:
        decisions = decide(
            recording,
            Policy(skip_threshold=policy.skip_threshold, no_skip=policy.no_skip, exit_threshold=value),
        )
    return "".join(np.where(decisions.answers_r == recording.label_ids_r, "1", "0"))


def _rows(points: tuple[CurvePoint, ...], plain: float) -> list[list[float]]:
    """The points as rows of CURVE_COLUMNS, without points at which nothing changes."""
    rows: list[list[float]] = []
    for point in points:
        row = [
            round(point.value, 8),
            round(point.accuracy, 5),
            round(point.f1, 5),
            round(point.matthews, 5),
            round(point.mean_layers_run, 3),
            round(point.macs / plain, 5),
        ]
        if not rows or row[1:] != rows[-1][1:]:
            rows.append(row)
    return rows
