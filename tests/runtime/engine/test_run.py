"""layouts: one folder, three ways to cut the model, the same answers whichever is loaded."""

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
from tests.runtime.packages import LAYOUTS, VARIANTS

POLICY = Policy(exit_threshold=0.5)
POLICIES = [POLICY, replace(POLICY, no_skip=True), POLICY.at_full_depth()]


def load(folder: Path, variant: str) -> SmartBert:
    layout, precision = variant.split("-")
    return SmartBert.load(folder, layout=layout, precision=precision)


def test_a_folder_holds_every_layout_in_every_precision_the_default_first(layouts_dir: Path) -> None:
    model = SmartBert.load(layouts_dir)
    assert [variant.name for variant in model.package.manifest.variants] == VARIANTS
    assert model.sessions.variant.name == "separate-fp32"
    assert SmartBert.load(layouts_dir, precision="int8").sessions.variant.name == "separate-int8"
    assert SmartBert.load(layouts_dir, layout="single").sessions.variant.name == "single-fp32"


def test_each_layout_runs_its_own_parts(layouts_dir: Path) -> None:
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
def test_answers_are_the_same_whichever_layout_is_loaded(layouts_dir: Path, layout: str, policy: Policy) -> None:
    expected = load(layouts_dir, "separate-fp32").classify(SENTENCES, policy=policy)
    for batch_size in (1, 24):
        found = load(layouts_dir, f"{layout}-fp32").classify(SENTENCES, policy=policy, batch_size=batch_size)
        assert [one.label for one in found] == [other.label for other in expected]
        assert [one.trace.decisions() for one in found] == [other.trace.decisions() for other in expected]
        for one, other in zip(found, expected, strict=True):
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_fused_obeys_max_layers_as_separate_does(layouts_dir: Path, limit: int) -> None:
    policy = replace(POLICY, max_layers=limit)
    one, other = (load(layouts_dir, name).classify(SENTENCES, policy=policy) for name in ("fused-fp32", VARIANTS[0]))
    assert [found.trace.decisions() for found in one] == [found.trace.decisions() for found in other]
    assert {len(found.layers_run) for found in one} >= {limit}


def test_fused_tells_the_numbers_it_decided_by_as_separate_does(layouts_dir: Path) -> None:
    one, other = (load(layouts_dir, name).classify(SENTENCES) for name in ("fused-fp32", VARIANTS[0]))
    for found, expected in zip(one, other, strict=True):
        # NaN where nothing was asked, in both.
        for name in ("skip_logit_l", "entropy_l"):
            np.testing.assert_allclose(
                getattr(found.trace, name), getattr(expected.trace, name), rtol=0, atol=1e-4, err_msg=name
            )


def test_int8_answers_with_the_labels_of_fp32(layouts_dir: Path) -> None:
    expected = [one.label for one in load(layouts_dir, VARIANTS[0]).classify(SENTENCES)]
    assert len(set(expected)) == 3
    for layout in LAYOUTS:
        found = [one.label for one in load(layouts_dir, f"{layout}-int8").classify(SENTENCES)]
        # Rounded weights may turn a label, one in these.
        assert sum(one != other for one, other in zip(found, expected, strict=True)) <= 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_int8_answers_a_text_alone_as_in_a_batch(layouts_dir: Path, layout: str) -> None:
    # onnxruntime's own dynamic quantization scales over the whole batch; these graphs must not.
    model = load(layouts_dir, f"{layout}-int8")
    together = model.classify(SENTENCES)
    for text, expected in zip(SENTENCES, together, strict=True):
        (alone,) = model.classify([text])
        assert alone.trace.decisions() == expected.trace.decisions()
        # One entry rounded the other way moves a logit by up to 0.005.
        np.testing.assert_allclose(alone.trace.logits_c, expected.trace.logits_c, rtol=0, atol=0.01)


def test_int8_single_is_int8_fused_in_one_graph(layouts_dir: Path) -> None:
    one, other = (load(layouts_dir, f"{layout}-int8").classify(SENTENCES) for layout in ("single", "fused"))
    assert [found.trace.decisions() for found in one] == [found.trace.decisions() for found in other]


@pytest.mark.parametrize("variant", VARIANTS)
def test_outcomes_come_in_the_order_of_the_rows(layouts_dir: Path, variant: str) -> None:
    model = load(layouts_dir, variant)
    rows = [5, 22, 0, 11]
    tokens = model.tokenizer.encode(SENTENCES)
    found = [outcome.trace.decisions() for outcome in run_layout(model.sessions, tokens.rows(rows), POLICY)]
    alone = [run_layout(model.sessions, tokens.rows([row]), POLICY)[0].trace.decisions() for row in rows]
    assert found == alone
    assert len(set(found)) > 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_policy_presets_are_there_for_every_variant(layouts_dir: Path, variant: str) -> None:
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
def test_only_single_refuses_what_its_graph_cannot_decide(
    layouts_dir: Path, variant: str, change: dict[str, Any], named: str
) -> None:
    sessions = load(layouts_dir, variant).sessions
    check_runnable(sessions, POLICY)
    changed = replace(POLICY, **change)
    if variant.startswith("single"):
        with pytest.raises(ConfigError, match=f"knows no {named}"):
            check_runnable(sessions, changed)
    else:
        check_runnable(sessions, changed)


def test_exit_thresholds_are_one_for_each_layer(layouts_dir: Path) -> None:
    with pytest.raises(ConfigError, match=f"2 exit thresholds for {LAYERS} layers"):
        check_runnable(load(layouts_dir, "fused-fp32").sessions, replace(POLICY, exit_thresholds=(0.1, 0.2)))


def test_a_layout_or_precision_that_is_not_there_lists_what_is(layouts_dir: Path) -> None:
    for layout, precision in (("double", None), (None, "int4"), ("single", "int4")):
        with pytest.raises(ManifestError, match="no variant with layout") as caught:
            SmartBert.load(layouts_dir, layout=layout, precision=precision)
        assert caught.value.hint == "it holds: " + ", ".join(VARIANTS)
