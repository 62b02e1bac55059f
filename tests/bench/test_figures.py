"""Figures and ratios: percentiles of medians over the passes, ratios pass by pass."""

from __future__ import annotations

import numpy as np
import pytest

from smartbert_bench.contenders.contender import Contender
from smartbert_bench.figures import Measurements, are_rivals, compute_figures, compute_ratios
from smartbert_bench.passes import OneByOne
from smartbert_bench.report import Spread
from smartbert_bench.starts import StartTimes
from smartbert_bench.workers.process import WorkerSpec
from smartbert_bench.workers.protocol import MemoryReply
from tests.bench.conftest import make_examples

ALL = ("fp32", "int8")


def contender(name: str, kind: str, precision: str, mode: str = "", worker: str = "") -> Contender:
    spec = WorkerSpec(name=worker or name, module="", spec={})
    return Contender(name=name, kind=kind, precision=precision, worker=spec, mode=mode, layers=6, disk_bytes=2_500_000)


def measured(ms_pt: list[list[float]], speeds: list[float]) -> Measurements:
    return Measurements(
        one_by_one=OneByOne(ms_pt=np.array(ms_pt), labels=("odd", "odd", "calm", "calm"), layers_run=(1, 2, 3, 6)),
        batch_speeds={8: np.array(speeds)},
        starts=StartTimes(first_answer_seconds=(0.5, 0.9, 0.6), load_seconds=(0.3, 0.1, 0.2)),
        loaded_memory=MemoryReply(resident_mb=90.0, peak_mb=95.0),
        steady_memory=MemoryReply(resident_mb=100.0, peak_mb=120.0),
        final_memory=MemoryReply(resident_mb=150.0, peak_mb=200.0),
    )


# The second pass is disturbed at one text, the third is slower throughout.
QUICK = measured([[1, 1, 2, 4], [1, 1, 2, 40], [2, 2, 4, 8]], [100, 400, 50])
SLOW = measured([[4, 4, 4, 4], [4, 4, 4, 4], [4, 4, 4, 4]], [50, 50, 50])


def test_figures_take_medians_over_passes() -> None:
    found = compute_figures(
        contender("fused-fp32", "package", "fp32"), QUICK, make_examples(("odd", "odd", "odd", "calm"))
    )
    assert found.latency_ms.p50 == 1.5  # of 1, 1, 2, 8
    assert found.latency_ms.mean == 3.0
    assert found.latency_ms.p95 == pytest.approx(2 + 0.85 * 6) and found.latency_ms.p99 == pytest.approx(2 + 0.97 * 6)
    assert (found.accuracy, found.recall, found.mean_layers_run) == (0.75, {"calm": 1.0, "odd": 2 / 3}, 3.0)
    assert found.texts_per_second == {"8": 100.0}
    assert (found.load_seconds, found.first_answer_seconds) == (0.2, 0.6)
    assert (found.loaded_mb, found.steady_mb, found.peak_mb, found.batch_peak_mb) == (90.0, 100.0, 120.0, 200.0)
    assert found.disk_mb == 2.5


def test_ratio_with_its_spread() -> None:
    of, over = contender("fused-fp32", "package", "fp32", "policy"), contender("plain-fp32", "plain", "fp32")
    (ratio,) = compute_ratios([of, over], {"fused-fp32": QUICK, "plain-fp32": SLOW})
    assert (ratio.of, ratio.over) == ("fused-fp32", "plain-fp32")
    assert ratio.mean == Spread(value=1.0, low=16 / 44, high=2.0)
    assert ratio.median == Spread(value=4 / 1.5, low=4 / 3, high=4 / 1.5)
    assert ratio.texts_per_second == {"8": Spread(value=2.0, low=1.0, high=8.0)}


def test_rivals_of_a_package() -> None:
    own = [
        contender(name, "package", precision, mode, f"fused-{precision}")
        for precision in ALL
        for name, mode in ((f"fused-{precision}", "policy"), (f"fused-{precision}, full", "full depth"))
    ]
    others = [contender(f"{kind}-{precision}", kind, precision) for kind in ("plain", "optimum") for precision in ALL]
    pairs = [(of.name, over.name) for of in (*own, *others) for over in (*own, *others) if are_rivals(of, over)]
    assert pairs == [
        (f"fused-{precision}", over)
        for precision in ALL
        for over in (f"fused-{precision}, full", f"plain-{precision}", "optimum-fp32", "optimum-int8")
    ]
