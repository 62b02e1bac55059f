"""figures and ratios: percentiles of medians over the passes, ratios pass by pass."""

from __future__ import annotations

import numpy as np
import pytest

from smartbert_bench.contenders.contender import Contender
from smartbert_bench.figures import Measured, Spread, are_rivals, figures, ratios
from smartbert_bench.passes import Singles
from smartbert_bench.starts import Starts
from smartbert_bench.workers.process import WorkerSpec
from smartbert_bench.workers.protocol import Weight
from tests.bench.conftest import make_examples

ALL = ("fp32", "int8")


def contender(name: str, kind: str, precision: str, way: str = "", worker: str = "") -> Contender:
    spec = WorkerSpec(name=worker or name, module="", spec={})
    return Contender(name=name, kind=kind, precision=precision, worker=spec, way=way, layers=6, disk_bytes=2_500_000)


def measured(ms_pt: list[list[float]], speeds: list[float]) -> Measured:
    return Measured(
        singles=Singles(ms_pt=np.array(ms_pt), labels=("odd", "odd", "calm", "calm"), layers_run=(1, 2, 3, 6)),
        speeds={8: np.array(speeds)},
        starts=Starts(first_answer_seconds=(0.5, 0.9, 0.6), load_seconds=(0.3, 0.1, 0.2)),
        loaded=Weight(resident_mb=90.0, peak_mb=95.0),
        steady=Weight(resident_mb=100.0, peak_mb=120.0),
        last=Weight(resident_mb=150.0, peak_mb=200.0),
    )


# The second pass is disturbed at one text, the third is slower throughout.
QUICK = measured([[1, 1, 2, 4], [1, 1, 2, 40], [2, 2, 4, 8]], [100, 400, 50])
SLOW = measured([[4, 4, 4, 4], [4, 4, 4, 4], [4, 4, 4, 4]], [50, 50, 50])


def test_a_text_counts_with_its_median_over_the_passes() -> None:
    found = figures(contender("fused-fp32", "package", "fp32"), QUICK, make_examples(("odd", "odd", "odd", "calm")))
    assert found.latency_ms.p50 == 1.5  # of 1, 1, 2, 8
    assert found.latency_ms.mean == 3.0
    assert found.latency_ms.p95 == pytest.approx(2 + 0.85 * 6) and found.latency_ms.p99 == pytest.approx(2 + 0.97 * 6)
    assert (found.accuracy, found.recall, found.mean_layers_run) == (0.75, {"calm": 1.0, "odd": 2 / 3}, 3.0)
    assert found.texts_per_second == {"8": 100.0}
    assert (found.load_seconds, found.first_answer_seconds) == (0.2, 0.6)
    assert (found.loaded_mb, found.steady_mb, found.peak_mb, found.batch_peak_mb) == (90.0, 100.0, 120.0, 200.0)
    assert found.disk_mb == 2.5


def test_a_ratio_says_how_many_times_faster_with_its_spread() -> None:
    of, over = contender("fused-fp32", "package", "fp32", "policy"), contender("plain-fp32", "plain", "fp32")
    (ratio,) = ratios([of, over], {"fused-fp32": QUICK, "plain-fp32": SLOW})
    assert (ratio.of, ratio.over) == ("fused-fp32", "plain-fp32")
    assert ratio.mean == Spread(value=1.0, low=16 / 44, high=2.0)
    assert ratio.median == Spread(value=4 / 1.5, low=4 / 3, high=4 / 1.5)
    assert ratio.texts_per_second == {"8": Spread(value=2.0, low=1.0, high=8.0)}


def test_rivals_are_all_layers_plain_in_the_same_precision_and_every_optimum() -> None:
    ways = [
        contender(name, "package", precision, way, f"fused-{precision}")
        for precision in ALL
        for name, way in ((f"fused-{precision}", "policy"), (f"fused-{precision}, all", "all layers"))
    ]
    others = [contender(f"{kind}-{precision}", kind, precision) for kind in ("plain", "optimum") for precision in ALL]
    pairs = [(of.name, over.name) for of in (*ways, *others) for over in (*ways, *others) if are_rivals(of, over)]
    assert pairs == [
        (f"fused-{precision}", over)
        for precision in ALL
        for over in (f"fused-{precision}, all", f"plain-{precision}", "optimum-fp32", "optimum-int8")
    ]
