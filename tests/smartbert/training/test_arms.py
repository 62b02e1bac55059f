"""arms.py: what each control arm fixes, and that it leaves everything else as it was given."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest

from smartbert.training.arms import ARMS, settings_of
from smartbert.training.settings import ARM_NAMES
from smartbert_runtime.errors import ConfigError
from tests.smartbert.conftest import TINY_SETTINGS

# Every setting that an arm may fix has another value here.
GIVEN = replace(
    TINY_SETTINGS,
    stage1_epochs=5,
    ungated_epochs=1,
    soft_epochs=2,
    eta1=0.1,
    eta2=0.2,
    joint_exits=0.3,
    distillation=0.4,
    target_layers=2.5,
    keep_layers=3,
    gate_lambda=0.3,
    gate_bias=-1.0,
    temperature1=0.6,
    temperature2=0.7,
    contrast_padding=True,
    distillation_temperature=3.0,
    stage2_epochs=7,
    stage2_learning_rate=2e-3,
    head_width=12,
    gate_heads=3,
    exit_heads=6,
    head_query="first",
    max_disagreement=0.2,
    confidence=0.8,
)
OF_GATES = {"gate_lambda": 0.02, "target_layers": 0.0, "gate_bias": -3.0}
OF_LOSSES = {
    "temperature1": 0.5,
    "temperature2": 0.55,
    "contrast_padding": False,
    "distillation_temperature": 2.0,
}
NO_GATES = {"ungated_epochs": 5, "soft_epochs": 0, **OF_GATES}
DEEBERT = {
    **OF_LOSSES,
    **NO_GATES,
    "eta1": 0.0,
    "eta2": 0.0,
    "joint_exits": 0.0,
    "distillation": 0.0,
}
PLAIN = {
    **OF_GATES,
    **OF_LOSSES,
    "ungated_epochs": 0,
    "soft_epochs": 0,
    "stage2_epochs": 3,
    "stage2_learning_rate": 1e-3,
    "eta1": 0.0,
    "eta2": 0.0,
    "joint_exits": 1.0,
    "distillation": 0.5,
    "head_width": 128,
    "gate_heads": 2,
    "exit_heads": 4,
    "head_query": "mean",
    "max_disagreement": 0.01,
    "confidence": 0.95,
}
CHANGES: dict[str, dict[str, Any]] = {
    "smartbert": {},
    "no-contrast": {"eta1": 0.0, "eta2": 0.0},
    "no-hard": {"soft_epochs": 4},  # all that the plain epoch leaves
    "no-gates": NO_GATES,
    "deebert": DEEBERT,
    "pabee": DEEBERT,
    "plain": PLAIN,
    "truncated": PLAIN,
}


def test_arm_names() -> None:
    assert tuple(ARMS) == ARM_NAMES == tuple(CHANGES)


@pytest.mark.parametrize("arm", ARM_NAMES)
def test_settings_of_arm(arm: str) -> None:
    given = replace(GIVEN, arm=arm)
    assert asdict(settings_of(given)) == {**asdict(given), **CHANGES[arm]}


@pytest.mark.parametrize("arm", ARM_NAMES)
def test_settings_of_arm_are_stable(arm: str) -> None:
    once = settings_of(replace(GIVEN, arm=arm))
    assert settings_of(once) == once


def test_truncated_needs_layers() -> None:
    with pytest.raises(ConfigError, match="'truncated' needs a number of layers") as caught:
        settings_of(replace(GIVEN, arm="truncated", keep_layers=0))
    assert "--keep-layers" in caught.value.hint
    assert settings_of(replace(GIVEN, arm="plain", keep_layers=0)).keep_layers == 0


def test_plain_and_gated_arms() -> None:
    assert [name for name, arm in ARMS.items() if arm.plain] == ["plain", "truncated"]
    assert [name for name, arm in ARMS.items() if arm.gated] == ["smartbert", "no-contrast", "no-hard"]
