"""The reports of smartbert-verify and smartbert-inspect as text, or as one JSON document."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict

from smartbert_runtime.decisions.policy import Policy
from smartbert_runtime.inspection import Inspection
from smartbert_runtime.parity.verify import VerifyReport


def verify_text(report: VerifyReport) -> str:
    """One line per part, one per mode of running whole texts, and the verdict."""
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
            f"  {texts.mode}: {decisions.texts} texts, {len(decisions.different)} with other decisions, "
            f"{len(decisions.near)} too close to a threshold to compare, labels equal {decisions.label_agreement:.2%}, "
            f"exits equal {decisions.exit_agreement:.2%}, logits within {decisions.logits.max_abs:.1e} "
            f"(mean {decisions.logits.mean_abs:.1e}), nearest decision {decisions.nearest_margin:.1e} from its "
            f"threshold  {'ok' if decisions.ok else 'DIFFERS'}"
        )
        if not decisions.exact:
            continue  # quantized weights change close decisions, which is not an error
        lines += [f"    text {row + 1} has other decisions" for row in decisions.different[:10]]
        lines += [f"    text {row + 1} has a decision within 1e-4 of its threshold" for row in decisions.near[:10]]
    failure = report.first_failure
    return "\n".join([*lines, "parity: good" if failure is None else f"parity: {failure} differs"])


def verify_json(reports: Sequence[VerifyReport]) -> str:
    """All variants' reports as one document."""
    return one_document({"variants": [{**asdict(report), "first_failure": report.first_failure} for report in reports]})


def inspect_text(found: Inspection, *, ops: bool) -> str:
    """The package, its variants, and a line per part; with `ops`, operator coverage instead of shapes."""
    shape = "dynamic batch and length" if found.fixed_shape is None else "fixed shape {},{}".format(*found.fixed_shape)
    lines = [
        f"{found.family}, {found.layers} layers of {found.hidden_size}, up to {found.max_length} tokens, {shape}",
        f"labels      {', '.join(found.labels)}",
        f"checkpoint  {found.checkpoint_sha256}",
        "made with   " + ", ".join(f"{name} {version}" for name, version in found.packages.items()),
    ]
    for facts in found.variants:
        lines += ["", f"{facts.variant.name}: {facts.bytes / 1e6:.1f} MB of graphs"]
        lines += [f"  preset {name}: {_policy_line(policy)}" for name, policy in facts.presets.items()]
        for part in facts.parts:
            size = f"{part.bytes / 1000:>8.0f} kB"
            lines.append(f"  {part.part:<11} {size}  {part.file}  sha256 {part.sha256[:12]}")
            if ops:
                lines += [f"    here: {nodes} nodes on {name}" for name, nodes in part.placement.items()]
                lines += [f"    {name}: {taken} of {nodes} nodes" for name, (taken, nodes) in part.coverage.items()]
            else:
                lines.append(f"    {', '.join(part.inputs)} -> {', '.join(part.outputs)}")
    if ops:
        lines += [
            "",
            "CoreML and NNAPI: operator coverage by onnxruntime's usability checker at export, not seen on a device",
        ]
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])


def _policy_line(policy: Policy) -> str:
    skips = "skips no layer" if policy.no_skip else f"skips a layer at skip probability {policy.skip_threshold}"
    below = policy.exit_threshold if policy.exit_thresholds is None else list(policy.exit_thresholds)
    exits = {
        "entropy": f"answers at normalized entropy below {below}",
        "max-probability": f"answers at a normalized 1 - max probability below {below}",
        "patience": f"answers when {policy.patience} heads in a row have repeated the label",
        "confident-patience": f"answers when {policy.patience} heads in a row had a normalized entropy below {below}",
    }[policy.rule]
    limits = [
        *([f"after {policy.max_layers} layers at most"] if policy.max_layers is not None else []),
        *([f"after {policy.deadline_ms} ms"] if policy.deadline_ms is not None else []),
    ]
    return ", ".join([skips, "never exits early" if policy.no_exit else exits, *limits])


def inspect_json(found: Inspection) -> str:
    """The whole inspection as one document."""
    return one_document(found.as_dict())


def one_document(value: object) -> str:
    """JSON has no infinity and no NaN: they become null."""
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
