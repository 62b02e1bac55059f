"""bench_text: aligned tables of contenders and ratios, and the conditions below them."""

from __future__ import annotations

from dataclasses import replace

from smartbert_bench.conditions import Conditions, TokenCounts
from smartbert_bench.render import WIDTH, bench_text
from smartbert_bench.report import BenchReport, Figures, Latency, Ratio, Spread

CONDITIONS = Conditions(
    source="dev.tsv",
    texts=40,
    pairs=False,
    tokens=TokenCounts(mean=12.25, p50=11.0, p95=20.0, max=32),
    preset="default",
    providers=("CPUExecutionProvider",),
    threads=2,
    repeats=3,
    batch_sizes=(8, 128),
    starts=1,
    cores=4,
    machine="aarch64",
    processor="Cortex-A76",
    load_average=(0.25, 1.5),
    versions={"python": "3.11.0", "onnxruntime": "1.20.0"},
)


def figures(name: str, p50: float) -> Figures:
    return Figures(
        name=name,
        kind="package",
        accuracy=0.9,
        recall={"ham": 0.875, "spam": 1.0},
        mean_layers_run=2.5,
        latency_ms=Latency(p50=p50, p95=p50 + 1.0, p99=p50 + 2.0, mean=p50 + 0.5),
        texts_per_second={"8": 1000.0, "128": 1200.0},
        load_seconds=0.25,
        first_answer_seconds=0.5,
        loaded_mb=90.0,
        steady_mb=100.0,
        peak_mb=120.0,
        batch_peak_mb=200.0,
        disk_mb=24.5,
    )


def spread(value: float) -> Spread:
    return Spread(value=value, low=value - 0.1, high=value + 0.1)


REPORT = BenchReport(
    conditions=CONDITIONS,
    contenders=(figures("fused-int8", 1.0), figures("plain-int8", 10.0)),
    ratios=(
        Ratio(
            of="fused-int8",
            over="plain-int8",
            median=spread(10.0),
            mean=spread(7.0),
            texts_per_second={"8": spread(2.0), "128": spread(1.5)},
        ),
    ),
)


TABLES = """
                                 ms a text, one by one   texts/s by batch    seconds to               MB
             accuracy layers     p50   p95   p99  mean             8  128   load answer   held peak disk
fused-int8     0.9000   2.50    1.00  2.00  3.00  1.50          1000 1200   0.25   0.50    100  120 24.5
plain-int8     0.9000   2.50   10.00 11.00 12.00 10.50          1000 1200   0.25   0.50    100  120 24.5

                                           times faster, one by one                            by batch
                                     at the median       on average                  8              128
fused-int8 against plain-int8   10.00 (9.90-10.10) 7.00 (6.90-7.10)   2.00 (1.90-2.10) 1.50 (1.40-1.60)

"""


def test_two_tables_and_conditions() -> None:
    assert bench_text(REPORT).startswith(TABLES[1:])
    lines = bench_text(REPORT).splitlines()
    assert lines[9] == "recall of fused-int8: ham 0.8750, spam 1.0000"
    assert all(len(line) <= WIDTH for line in lines[9:])
    conditions = " ".join(line.strip() for line in lines[10:])
    for words in (
        "conditions: 40 texts of dev.tsv, 12.2 tokens on average, 11 at the median, 20 at 95 %, 32 at most;",
        "(passes: 3, starts: 1); preset 'default' on CPUExecutionProvider;",
        "2 threads of 4 aarch64 cores (Cortex-A76), load average 0.2 before and 1.5 after;",
        "python 3.11.0, onnxruntime 1.20.0",
    ):
        assert words in conditions


def test_unmeasured_figures_are_dashes() -> None:
    row = replace(
        figures("single-fp32", 1.0), texts_per_second={}, first_answer_seconds=None, steady_mb=None, peak_mb=None
    )
    found = replace(CONDITIONS, batch_sizes=(), load_average=(None, None), processor="", pairs=True)
    lines = bench_text(BenchReport(conditions=found, contenders=(row,), ratios=())).splitlines()
    assert "batch" not in lines[0]
    figures_seen = ["0.9000", "2.50", "1.00", "2.00", "3.00", "1.50", "0.25", "-", "-", "-", "24.5"]
    assert lines[2].split() == ["single-fp32", *figures_seen]
    assert "40 pairs of dev.tsv" in lines[5]
    assert "aarch64 cores, load average - before" in " ".join(line.strip() for line in lines[5:])
