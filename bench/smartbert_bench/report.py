"""smartbert-bench's report: tables and conditions for a person, one JSON document for a program."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from smartbert_bench.conditions import Conditions
from smartbert_bench.figures import BenchReport, Figures, Ratio, Spread
from smartbert_runtime.cli.reports import one_document

WIDTH = 120
# A table's columns in groups: the words above the group, and each column's head.
Groups = Sequence[tuple[str, Sequence[str]]]


def bench_json(report: BenchReport) -> str:
    """The whole report as one document."""
    return one_document(asdict(report))


def bench_text(report: BenchReport) -> str:
    """One line a contender, one a ratio, then recall and conditions."""
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
    """Two lines of heads and one a row; columns aligned on the right, groups further apart."""
    heads = [head for _, columns in groups for head in columns]
    widths = [max(map(len, column)) for column in zip(heads, *rows.values(), strict=True)]
    named = max(map(len, rows))
    lines = [f"{name:<{named}}" for name in ("", "", *rows)]
    first = 0
    for title, columns in groups:
        last = first + len(columns)
        widths[first] += max(0, len(title) - sum(widths[first:last]) - len(columns) + 1)
        lines[0] += "   " + title.rjust(sum(widths[first:last]) + len(columns) - 1)
        for number, cells in enumerate([heads, *rows.values()], start=1):
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
    return [_spread(found) for found in (ratio.median, ratio.mean, *(ratio.texts_per_second[size] for size in sizes))]


def _spread(ratio: Spread) -> str:
    return f"{ratio.value:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _recall(row: Figures) -> list[str]:
    return _wrapped(
        f"recall of {row.name}: " + ", ".join(f"{label} {value:.4f}" for label, value in row.recall.items())
    )


def _conditions(found: Conditions) -> list[str]:
    tokens = found.tokens
    before, after = (_or_dash(value, ".1f") for value in found.load_average)
    text = (
        f"{found.texts} {'pairs' if found.pairs else 'texts'} of {found.source}, {tokens.mean:.1f} tokens on average, "
        f"{tokens.p50:.0f} at the median, {tokens.p95:.0f} at 95 %, {tokens.max} at most; tokenizing included; "
        "medians over the passes, in brackets the lowest and highest "
        f"(passes: {found.repeats}, starts: {found.starts}); "
        f"preset {found.preset!r} on {', '.join(found.providers)}; MB held: resident after the texts one by one; "
        f"{found.threads} threads of {found.cores} {found.machine} cores"
        + (f" ({found.processor})" if found.processor else "")
        + f", load average {before} before and {after} after; "
        + ", ".join(f"{name} {version}" for name, version in found.versions.items())
    )
    return _wrapped("conditions: " + text)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, subsequent_indent="  ", break_long_words=False)
