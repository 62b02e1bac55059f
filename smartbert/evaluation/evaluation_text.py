"""An evaluation as text for the terminal: figures, rates per layer, accuracy at several savings."""

from __future__ import annotations

from smartbert.evaluation.curves import SAVINGS, Summary, at_macs
from smartbert.evaluation.evaluate import Evaluation

# The setting that varies along each curve.
SETTINGS = {
    "both": "exit threshold",
    "gates off": "exit threshold",
    "patience": "patience",
    "exits off": "skip threshold",
}


def evaluation_text(report: Evaluation) -> str:
    """Figures at the given thresholds and at full depth, rates per layer, and accuracy along the curves."""
    summary, full = report.summary, report.full_depth
    lines = [
        f"texts        {report.texts}, {report.mean_tokens:.1f} tokens on average",
        f"{'':<16} {'accuracy':>9} {'F1':>8} {'Matthews':>9} {'layers run':>13} {'MAC':>9} {'of plain':>9}",
    ]
    if report.curves:
        lines.append(_row(f"exit at {report.exit_threshold:.4g}", summary, report.macs, report))
    lines.append(_row("full depth", full, report.full_depth_macs, report))
    lines.append("recall       " + ", ".join(f"{label} {value:.4f}" for label, value in summary.recall.items()))
    if not report.curves:
        return "\n".join(lines)
    lines += ["", f"{'layer':<7} {'skipped':>8} {'answered':>9} {'head alone':>11}"]
    for layer, (skip, answered, alone) in enumerate(
        zip(summary.skip_rate, summary.exit_rate, summary.exit_accuracy, strict=True), start=1
    ):
        shown = "" if alone is None else f"{alone:.4f}"
        lines.append(f"{layer:<7} {skip:>8.1%} {answered:>9.1%} {shown:>11}")
    lines += [
        "",
        f"{'accuracy at':<16}" + "".join(f"{f'{saving:g}x':>9}" for saving in SAVINGS) + "  fewer MAC than plain",
    ]
    for name, points in report.curves.items():
        values = [at_macs(points, report.plain_macs / saving) for saving in SAVINGS]
        cells = "".join("        -" if value is None else f"{value:>9.4f}" for value in values)
        lines.append(f"{name:<16}{cells}  over the {SETTINGS[name]}")
    return "\n".join(lines)


def _row(name: str, summary: Summary, macs: float, report: Evaluation) -> str:
    return (
        f"{name:<16} {summary.accuracy:>9.4f} {summary.f1:>8.4f} {summary.matthews:>9.4f} "
        f"{summary.mean_layers_run:>6.2f} of {report.layers:<3} {macs / 1e6:>7.1f} M {macs / report.plain_macs:>9.1%}"
    )
