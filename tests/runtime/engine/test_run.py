"""engine.run: the same answers from every layout; policies that a layout cannot follow are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smartbert_runtime import Policy, SmartBert
from smartbert_runtime.engine.run import check_runnable, run_layout
from smartbert_runtime.errors import ConfigError, ManifestError
from tests.conftest import LAYERS, SENTENCES
from tests.package_folders import LAYOUTS, VARIANTS

POLICY = Policy(exit_threshold=0.5)
POLICIES = [POLICY, replace(POLICY, no_skip=True), POLICY.at_full_depth()]


def load(folder: Path, variant: str) -> SmartBert:
    layout, precision = variant.split("-")
    return SmartBert.load(folder, layout=layout, precision=precision)


def test_variant_is_chosen(layouts_dir: Path) -> None:
    model = SmartBert.load(layouts_dir)
    assert [variant.name for variant in model.package.manifest.variants] == VARIANTS
    assert model.sessions.variant.name == "separate-fp32"
    assert SmartBert.load(layouts_dir, precision="int8").sessions.variant.name == "separate-int8"
    assert SmartBert.load(layouts_dir, layout="single").sessions.variant.name == "single-fp32"


def test_parts_of_each_layout(layouts_dir: Path) -> None:
    numbers = range(1, 5)
    parts = {
        "separate": ["embeddings", *(f"{role}_{n:02d}" for n in numbers for role in ("gate", "layer", "exit"))],
        "fused": ["embeddings", *(f"{role}_{n:02d}" for n in numbers for role in ("gate", "block")), "exit_04"],
        "single": ["model"],
    }
    for variant in VARIANTS:
        model = load(layouts_dir, variant)
        model.sessions.open_all()
        assert list(model.sessions.placements()) == sorted(parts[model.sessions.variant.layout])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("layout", ["fused", "single"])
def test_layouts_give_same_answers(layouts_dir: Path, layout: str, policy: Policy) -> None:
    expected = load(layouts_dir, "separate-fp32").classify(SENTENCES, policy=policy)
    for batch_size in (1, 24):
        found = load(layouts_dir, f"{layout}-fp32").classify(SENTENCES, policy=policy, batch_size=batch_size)
        assert [one.label for one in found] == [other.label for other in expected]
        assert [one.trace.decisions() for one in found] == [other.trace.decisions() for other in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_fused_max_layers(layouts_dir: Path, limit: int) -> None:
    policy = replace(POLICY, max_layers=limit)
    one, other = (load(layouts_dir, name).classify(SENTENCES, policy=policy) for name in ("fused-fp32", VARIANTS[0]))
    assert [found.trace.decisions() for found in one] == [found.trace.decisions() for found in other]
    assert {len(found.layers_run) for found in one} >= {limit}


def test_fused_traces_hold_numbers(layouts_dir: Path) -> None:
    one, other = (load(layouts_dir, name).classify(SENTENCES) for name in ("fused-fp32", VARIANTS[0]))
    for found, expected in zip(one, other, strict=True):
        # NaN where nothing was evaluated, in both.
        for name in ("skip_logit_l", "uncertainty_l"):
            np.testing.assert_allclose(
                getattr(found.trace, name), getattr(expected.trace, name), rtol=0, atol=1e-4, err_msg=name
            )


def test_int8_labels_match_fp32(layouts_dir: Path) -> None:
    expected = [one.label for one in load(layouts_dir, VARIANTS[0]).classify(SENTENCES)]
    assert len(set(expected)) == 3
    for layout in LAYOUTS:
        found = [one.label for one in load(layouts_dir, f"{layout}-int8").classify(SENTENCES)]
        # Quantized weights may change a label, one of these.
        assert sum(one != other for one, other in zip(found, expected, strict=True)) <= 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_int8_batch_matches_single_text(layouts_dir: Path, layout: str) -> None:
    # onnxruntime's own dynamic quantization scales over the whole batch; these graphs must not.
    model = load(layouts_dir, f"{layout}-int8")
    together = model.classify(SENTENCES)
    for text, expected in zip(SENTENCES, together, strict=True):
        (single,) = model.classify([text])
        assert single.trace.decisions() == expected.trace.decisions()
        # One entry that is rounded the other way changes a logit by up to 0.005.
        np.testing.assert_allclose(single.trace.logits_c, expected.trace.logits_c, rtol=0, atol=0.01)


def test_int8_single_matches_fused(layouts_dir: Path) -> None:
    one, other = (load(layouts_dir, f"{layout}-int8").classify(SENTENCES) for layout in ("single", "fused"))
    assert [found.trace.decisions() for found in one] == [found.trace.decisions() for found in other]


@pytest.mark.parametrize("variant", VARIANTS)
def test_outcomes_in_row_order(layouts_dir: Path, variant: str) -> None:
    model = load(layouts_dir, variant)
    rows = [5, 22, 0, 11]
    tokens = model.tokenizer.encode(SENTENCES)
    found = [outcome.trace.decisions() for outcome in run_layout(model.sessions, tokens.rows(rows), POLICY)]
    one_by_one = [run_layout(model.sessions, tokens.rows([row]), POLICY)[0].trace.decisions() for row in rows]
    assert found == one_by_one
    assert len(set(found)) > 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_presets_of_every_variant(layouts_dir: Path, variant: str) -> None:
    model = load(layouts_dir, variant)
    assert model.policy() == POLICY
    assert model.policy("full-depth") == POLICY.at_full_depth()
    with pytest.raises(ConfigError, match=f"no preset 'fast' for {variant}"):
        model.policy("fast")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"max_layers": 2}, "max_layers"),
        ({"deadline_ms": 5.0}, "deadline_ms"),
        ({"exit_thresholds": (0.1,) * LAYERS}, "exit_thresholds"),
        ({"rule": "patience"}, "rule 'patience'"),
    ],
)
def test_single_refuses_unknown_rules(layouts_dir: Path, variant: str, change: dict[str, Any], named: str) -> None:
    sessions = load(layouts_dir, variant).sessions
    check_runnable(sessions, POLICY)
    changed = replace(POLICY, **change)
    if variant.startswith("single"):
        with pytest.raises(ConfigError, match=f"knows no {named}"):
            check_runnable(sessions, changed)
    else:
        check_runnable(sessions, changed)


def test_wrong_number_of_exit_thresholds(layouts_dir: Path) -> None:
    with pytest.raises(ConfigError, match=f"2 exit thresholds for {LAYERS} layers"):
        check_runnable(load(layouts_dir, "fused-fp32").sessions, replace(POLICY, exit_thresholds=(0.1, 0.2)))


def test_missing_variant_lists_variants(layouts_dir: Path) -> None:
    for layout, precision in (("double", None), (None, "int4"), ("single", "int4")):
        with pytest.raises(ManifestError, match="no variant with layout") as caught:
            SmartBert.load(layouts_dir, layout=layout, precision=precision)
        assert caught.value.hint == "it holds: " + ", ".join(VARIANTS)
