"""reports: smartbert-verify's report as text and as JSON."""

from __future__ import annotations

import json
import math

import pytest

from smartbert_runtime.cli.reports import verify_json, verify_text
from smartbert_runtime.parity.compare import DecisionReport, Difference
from smartbert_runtime.parity.verify import PartCheck, TextsCheck, VerifyReport


def found(max_abs: float, tolerance: float = 4e-6) -> Difference:
    return Difference(max_abs=max_abs, mean_abs=max_abs / 2.0, tolerance=tolerance)


def make_verify_report(
    *,
    worst: float = 1e-7,
    near: tuple[int, ...] = (),
    different: tuple[int, ...] = (),
    logits: float = 2e-6,
    exact: bool = True,
) -> VerifyReport:
    decisions = DecisionReport(
        texts=1000,
        near=near,
        different=different,
        label_agreement=0.999,
        label_loss=0.0005,
        logits=found(logits, 1e-4),
        nearest_margin=0.012,
        exit_agreement=0.9975,
        exact=exact,
    )
    return VerifyReport(
        variant="separate-fp32",
        oracle="PyTorch",
        parts=(
            PartCheck(part="embeddings", difference=found(0.0)),
            PartCheck(part="layer_01", difference=found(worst)),
        ),
        texts=(TextsCheck(mode="texts one by one", decisions=decisions),),
    )


def refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def test_verify_text_good() -> None:
    assert verify_text(make_verify_report()).splitlines() == [
        "separate-fp32 against PyTorch",
        "  embeddings   max difference 0.0e+00 (allowed 4.0e-06)  ok",
        "  layer_01     max difference 1.0e-07 (allowed 4.0e-06)  ok",
        "  texts one by one: 1000 texts, 0 with other decisions, 0 too close to a threshold to compare, "
        "labels equal 99.90%, exits equal 99.75%, "
        "logits within 2.0e-06 (mean 1.0e-06), nearest decision 1.2e-02 from its threshold  ok",
        "parity: good",
    ]


def test_verify_text_different_part() -> None:
    lines = verify_text(make_verify_report(worst=5e-6)).splitlines()
    assert lines[1].endswith("ok")
    assert lines[2] == "  layer_01     max difference 5.0e-06 (allowed 4.0e-06)  DIFFERS"
    assert lines[-1] == "parity: layer_01 differs"


def test_verify_text_nan() -> None:
    lines = verify_text(make_verify_report(worst=math.nan)).splitlines()
    assert lines[2].endswith("DIFFERS")
    assert lines[-1] == "parity: layer_01 differs"


def test_verify_text_lists_texts() -> None:
    lines = verify_text(make_verify_report(near=(0,), different=(4, 9))).splitlines()
    assert "2 with other decisions, 1 too close to a threshold" in lines[3]
    assert lines[3].endswith("DIFFERS")
    assert lines[4:] == [
        "    text 5 has other decisions",
        "    text 10 has other decisions",
        "    text 1 has a decision within 1e-4 of its threshold",
        "parity: texts one by one differs",
    ]


def test_verify_text_quantized() -> None:
    lines = verify_text(make_verify_report(near=(0,), different=tuple(range(4, 20)), logits=0.3, exact=False))
    assert "16 with other decisions, 1 too close to a threshold to compare, labels equal 99.90%" in lines
    assert "has other decisions" not in lines and "DIFFERS" not in lines
    assert lines.splitlines()[-1] == "parity: good"


def test_verify_text_lists_ten_texts() -> None:
    lines = verify_text(make_verify_report(different=tuple(range(50)))).splitlines()
    assert sum("has other decisions" in line for line in lines) == 10


def test_verify_json() -> None:
    (document,) = json.loads(verify_json([make_verify_report(worst=5e-6)]))["variants"]
    assert document["first_failure"] == "layer_01"
    assert [part["part"] for part in document["parts"]] == ["embeddings", "layer_01"]
    assert document["parts"][1]["difference"] == {"max_abs": 5e-6, "mean_abs": 2.5e-6, "tolerance": 4e-6}
    decisions = document["texts"][0]["decisions"]
    assert (decisions["texts"], decisions["exit_agreement"], decisions["exact"]) == (1000, 0.9975, True)
    assert json.loads(verify_json([make_verify_report()]))["variants"][0]["first_failure"] is None


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_verify_json_without_nan(value: float) -> None:
    # An output of another shape is infinitely far; "Infinity" and "NaN" are Python's words, not JSON's.
    reports = verify_json([make_verify_report(worst=value, logits=value)])
    (document,) = json.loads(reports, parse_constant=refuse)["variants"]
    assert document["first_failure"] == "layer_01"
