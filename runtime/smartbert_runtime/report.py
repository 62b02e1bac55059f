"""Reports for a person or a program: the lines that smartbert-verify and smartbert-bench print to stdout."""

from __future__ import annotations

import json
import math
from dataclasses import asdict

from smartbert_runtime.bench import BenchReport
from smartbert_runtime.verify import VerifyReport


def verify_text(report: VerifyReport) -> str:
    """One line a part, one line a way of running whole texts, and the verdict."""
    lines = [f"{report.variant} against {report.oracle}"]
    for check in report.parts:
        found = check.difference
        verdict = "ok" if found.ok else "DIFFERS"
        lines.append(
            f"  {check.part:<12} max difference {found.max_abs:.1e} (allowed {found.tolerance:.1e})  {verdict}"
        )
    for texts in report.texts:
        decisions = texts.decisions
        lines.append(
            f"  {texts.how}: {decisions.texts} texts, {len(decisions.different)} with other decisions, "
            f"{len(decisions.near)} with a call too near to tell, labels equal {decisions.label_agreement:.2%}, "
            f"logits within {decisions.logits.max_abs:.1e}  {'ok' if decisions.ok else 'DIFFERS'}"
        )
        lines += [f"    text {row + 1} decided otherwise" for row in decisions.different[:10]]
        lines += [f"    text {row + 1} has a call within 1e-4 of its threshold" for row in decisions.near[:10]]
    failure = report.first_failure
    return "\n".join([*lines, "parity: good" if failure is None else f"parity: {failure} differs"])


def verify_json(report: VerifyReport) -> str:
    """The whole report as one document."""
    return _json({**asdict(report), "first_failure": report.first_failure})


def bench_text(report: BenchReport) -> str:
    """A small table, and the conditions below it."""
    conditions, layers = report.conditions, report.layers
    lines = [f"{'':<12} {'accuracy':>9} {'layers run':>11} {'median ms':>10} {'mean ms':>9} {'p95 ms':>8}"]
    for row in (report.policy, report.full_depth):
        lines.append(
            f"{row.name:<12} {row.accuracy:>9.4f} {row.mean_layers_run:>5.2f} of {layers:<2} {row.median_ms:>10.2f} "
            f"{row.mean_ms:>9.2f} {row.p95_ms:>8.2f}"
        )
    low, high = report.speedup_mean_spread
    recalls = ", ".join(f"{label} {value:.4f}" for label, value in report.policy.recall.items())
    load = "" if conditions.load_average is None else f", load average {conditions.load_average:.1f}"
    return "\n".join(
        [
            *lines,
            f"recall        {recalls}",
            f"faster        {report.speedup_median:.2f}x at the median, {report.speedup_mean:.2f}x on average "
            f"({low:.2f} to {high:.2f} over {conditions.repeats} passes)",
            f"conditions    {conditions.texts} texts, {conditions.mean_tokens:.1f} tokens on average, one at a time, "
            f"{conditions.threads} threads of {conditions.cores} {conditions.machine} cores{load}, "
            f"{conditions.variant} on {', '.join(conditions.providers)}, onnxruntime {conditions.onnxruntime}, "
            f"Python {conditions.python}",
        ]
    )


def bench_json(report: BenchReport) -> str:
    """The whole report as one document."""
    return _json(asdict(report))


def _json(value: object) -> str:
    """JSON has no infinity and no NaN: they become null."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
