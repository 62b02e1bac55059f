"""Renders a bench report: aligned tables and conditions for a person, one JSON document for a program."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from smartbert_bench.conditions import Conditions
from smartbert_bench.report import BenchReport, Figures, Ratio, Spread
from smartbert_runtime.cli.reports import one_document

WIDTH = 120
# A table's columns in groups: the title above the group, and each column's header.
Groups = Sequence[tuple[str, Sequence[str]]]


def bench_json(report: BenchReport) -> str:
    """The whole report as one JSON document."""
    return one_document(asdict(report))


def bench_text(report: BenchReport) -> str:
    """One line per contender, one per ratio, then recall and conditions."""
    sizes = [str(size) for size in report.conditions.batch_sizes]
    groups = [
        ("", ["accuracy", "layers"]),
        ("ms a text, one by one", ["p50", "p95", "p99", "mean"]),
        *([("texts/s by batch", sizes)] if sizes else []),
        ("seconds to", ["load", "answer"]),
        ("MB", ["held", "peak", "disk"]),
    ]
    lines = _table(groups, {row.name: _cells(row, sizes) for row in report.contenders})
    if report.ratios:
        faster = [
            ("times faster, one by one", ["at the median", "on average"]),
            *([("by batch", sizes)] if sizes else []),
        ]
        lines += [
            "",
            *_table(faster, {f"{ratio.of} against {ratio.over}": _ratio(ratio, sizes) for ratio in report.ratios}),
        ]
    return "\n".join([*lines, "", *_recall(report.contenders[0]), *_conditions(report.conditions)])


def _table(groups: Groups, rows: dict[str, list[str]]) -> list[str]:
    """Two header lines and one per row; columns right-aligned, groups set further apart."""
    headers = [header for _, columns in groups for header in columns]
    widths = [max(map(len, column)) for column in zip(headers, *rows.values(), strict=True)]
    named = max(map(len, rows))
    lines = [f"{name:<{named}}" for name in ("", "", *rows)]
    first = 0
    for title, columns in groups:
        last = first + len(columns)
        widths[first] += max(0, len(title) - sum(widths[first:last]) - len(columns) + 1)
        lines[0] += "   " + title.rjust(sum(widths[first:last]) + len(columns) - 1)
        for number, cells in enumerate([headers, *rows.values()], start=1):
            aligned = (f"{cell:>{width}}" for cell, width in zip(cells[first:last], widths[first:last], strict=True))
            lines[number] += "   " + " ".join(aligned)
        first = last
    return lines


def _cells(row: Figures, sizes: Sequence[str]) -> list[str]:
    ms = row.latency_ms
    return [
        f"{row.accuracy:.4f}",
        f"{row.mean_layers_run:.2f}",
        *(f"{value:.2f}" for value in (ms.p50, ms.p95, ms.p99, ms.mean)),
        *(f"{row.texts_per_second[size]:.0f}" for size in sizes),
        f"{row.load_seconds:.2f}",
        *(_or_dash(value, form) for value, form in ((row.first_answer_seconds, ".2f"), (row.steady_mb, ".0f"))),
        _or_dash(row.peak_mb, ".0f"),
        f"{row.disk_mb:.1f}",
    ]


def _ratio(ratio: Ratio, sizes: Sequence[str]) -> list[str]:
    return [_spread(value) for value in (ratio.median, ratio.mean, *(ratio.texts_per_second[size] for size in sizes))]


def _spread(ratio: Spread) -> str:
    return f"{ratio.value:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _recall(row: Figures) -> list[str]:
    return _wrapped(
        f"recall of {row.name}: " + ", ".join(f"{label} {value:.4f}" for label, value in row.recall.items())
    )


def _conditions(conditions: Conditions) -> list[str]:
    tokens = conditions.tokens
    before, after = (_or_dash(value, ".1f") for value in conditions.load_average)
    text = (
        f"{conditions.texts} {'pairs' if conditions.pairs else 'texts'} of {conditions.source}, "
        f"{tokens.mean:.1f} tokens on average, "
        f"{tokens.p50:.0f} at the median, {tokens.p95:.0f} at 95 %, {tokens.max} at most; tokenizing included; "
        "medians over the passes, in brackets the lowest and highest "
        f"(passes: {conditions.repeats}, starts: {conditions.starts}); "
        f"preset {conditions.preset!r} on {', '.join(conditions.providers)}; "
        "MB held: resident after the texts one by one; "
        f"{conditions.threads} threads of {conditions.cores} {conditions.machine} cores"
        + (f" ({conditions.processor})" if conditions.processor else "")
        + f", load average {before} before and {after} after; "
        + ", ".join(f"{name} {version}" for name, version in conditions.versions.items())
    )
    return _wrapped("conditions: " + text)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False)
