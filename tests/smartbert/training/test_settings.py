"""settings.py: the range of every hyper-parameter named with its option, the recipes, and the help texts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from smartbert.training.settings import RECIPES, TrainingSettings
from smartbert_runtime.errors import ConfigError

# What the ranges below depend on; the project's defaults may change without changing a range.
BASE: dict[str, Any] = {
    "stage1_epochs": 4,
    "ungated_epochs": 1,
    "soft_epochs": 2,
    "head_width": 128,
    "gate_heads": 2,
    "exit_heads": 4,
}
NAMES = [item.name for item in dataclasses.fields(TrainingSettings)]
FLOATS = [item.name for item in dataclasses.fields(TrainingSettings) if item.type == "float"]

# Setting, a value just outside its range, the range in the message.
OUTSIDE: list[tuple[str, Any, str]] = [
    *((name, value, "from 0 to 1") for name in ("eta1", "eta2", "distillation") for value in (-0.01, 1.01)),
    *((name, value, "from 0 to 1") for name in ("max_disagreement", "skip_threshold") for value in (-0.01, 1.01)),
    *((name, value, "between 0 and 1") for name in ("validation_fraction", "confidence") for value in (0.0, 1.0)),
    *((name, 0.0, "above 0") for name in ("temperature1", "temperature2", "adam_epsilon")),
    ("distillation_temperature", 0.0, "above 0"),
    *((name, -1e-9, "0 or more") for name in ("learning_rate", "head_learning_rate", "stage2_learning_rate")),
    *((name, -1e-9, "0 or more") for name in ("gate_lambda", "weight_decay", "target_layers", "joint_exits")),
    *((name, 0, "1 or more") for name in ("stage1_epochs", "stage2_epochs", "batch_size", "head_width")),
    ("gradient_accumulation_steps", 0, "1 or more"),
    ("warmup_steps", -1, "0 or more"),
    ("keep_layers", -1, "0 or more"),
    ("keep_texts", -1, "0 or more"),
    ("class_weights", "some", "one of none, balanced"),
    ("arm", "bert", "one of smartbert, no-contrast, no-hard, no-gates, deebert, pabee, plain, truncated"),
    ("head_query", "last", "one of first, mean, learned"),
    ("pooling", "max", "one of mean, first"),
    ("mixed_precision", "fp16", "one of auto, no, bf16"),
    ("metric", "recall", "one of accuracy, f1, matthews"),
    ("ungated_epochs", -1, "from 0 to the 4 of --stage1-epochs"),
    ("ungated_epochs", 5, "from 0 to the 4 of --stage1-epochs"),  # stage 1 has 4
    ("soft_epochs", -1, "from 0 to the 4 of --stage1-epochs"),
    ("soft_epochs", 4, "from 0 to the 4 of --stage1-epochs, --ungated-epochs counted"),  # and the ungated one makes 5
    ("gate_heads", 0, "a divisor of head_width 128"),
    ("gate_heads", 3, "a divisor of head_width 128"),
    ("exit_heads", 0, "a divisor of head_width 128"),
    ("exit_heads", 5, "a divisor of head_width 128"),
    ("seed", -1, "0 or more"),  # numpy takes no negative seed
    ("seed", 2**32, "below 2^32"),
]

# The last values that are still allowed.
INSIDE: list[tuple[str, Any]] = [
    *((name, value) for name in ("eta1", "eta2", "max_disagreement", "skip_threshold") for value in (0.0, 1.0)),
    *(("distillation", value) for value in (0.0, 1.0)),
    *((name, 0.0) for name in ("learning_rate", "head_learning_rate", "stage2_learning_rate")),
    *((name, 0.0) for name in ("gate_lambda", "weight_decay", "target_layers", "joint_exits")),
    *((name, 1) for name in ("stage2_epochs", "batch_size", "gradient_accumulation_steps", "gate_heads", "exit_heads")),
    ("warmup_steps", 0),
    ("keep_layers", 0),
    ("keep_texts", 0),
    ("soft_epochs", 0),
    ("soft_epochs", 3),  # with one ungated epoch all 4
    ("ungated_epochs", 0),
    ("ungated_epochs", 2),  # with two soft ones all 4
    ("gate_heads", 128),
    ("seed", 0),
    ("seed", 2**32 - 1),
    *(("mixed_precision", value) for value in ("auto", "no", "bf16")),
    *(("metric", value) for value in ("accuracy", "f1", "matthews")),
    *(("head_query", value) for value in ("first", "mean", "learned")),
    *(("pooling", value) for value in ("mean", "first")),
]


@pytest.mark.parametrize(("name", "value", "wanted"), OUTSIDE)
def test_value_outside_range(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingSettings(**{**BASE, name: value})
    assert str(caught.value).startswith(f"{name} must be ")
    assert wanted in str(caught.value)
    assert str(value) in str(caught.value)
    assert caught.value.hint == "change --" + name.replace("_", "-")


@pytest.mark.parametrize(("name", "value"), INSIDE)
def test_ends_of_range_are_allowed(name: str, value: Any) -> None:
    assert getattr(TrainingSettings(**{**BASE, name: value}), name) == value


def test_phase_may_be_all_of_stage_1() -> None:
    assert TrainingSettings(**{**BASE, "ungated_epochs": 4, "soft_epochs": 0}).ungated_epochs == 4
    assert TrainingSettings(**{**BASE, "ungated_epochs": 0, "soft_epochs": 4}).soft_epochs == 4


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", FLOATS)
def test_nan_is_refused(name: str, value: float) -> None:
    assert {"learning_rate", "target_layers", "joint_exits", "gate_bias"} <= set(FLOATS)
    with pytest.raises(ConfigError, match=name):
        TrainingSettings(**{name: value})  # type: ignore[arg-type]


def test_settings_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingSettings().seed = 1  # type: ignore[misc]


def test_help_and_group_of_every_field() -> None:
    about = TrainingSettings.help()
    assert list(about) == NAMES
    advanced = ("Stages", "Loss terms", "Optimizer", "Model", "Choice of epoch and thresholds")
    groups = {"What most people set", *(f"{name} (advanced)" for name in advanced)}
    for name, (text, group) in about.items():
        assert len(text) > 15 and text.endswith("."), name
        assert group in groups, name


def test_model_settings() -> None:
    settings = TrainingSettings(
        max_length=20,
        head_width=8,
        gate_heads=4,
        exit_heads=8,
        head_query="mean",
        gate_bias=-1.0,
        skip_threshold=0.4,
    )
    assert settings.model_settings() == {
        "max_input_length": 20,
        "head_width": 8,
        "gate_heads": 4,
        "exit_heads": 8,
        "head_query": "mean",
        "gate_bias": -1.0,
        "skip_threshold": 0.4,
    }


def test_recipe_best_is_the_defaults() -> None:
    assert TrainingSettings.from_recipe("best") == TrainingSettings()


def test_recipe_paper() -> None:
    # The RTE script that comes with the paper, whatever this project's defaults are.
    paper = TrainingSettings.from_recipe("paper")
    assert (paper.stage1_epochs, paper.ungated_epochs, paper.soft_epochs, paper.stage2_epochs) == (5, 0, 3, 4)
    assert (paper.gate_lambda, paper.target_layers, paper.gate_bias) == (0.04, 0.0, 0.0)
    assert (paper.eta1, paper.eta2, paper.temperature1, paper.temperature2) == (0.01, 0.05, 0.5, 0.55)
    assert paper.contrast_padding
    assert (paper.joint_exits, paper.distillation, paper.class_weights) == (0.0, 0.0, "none")
    assert (paper.learning_rate, paper.head_learning_rate, paper.stage2_learning_rate) == (2e-5, 2e-5, 2e-5)
    assert paper.batch_size == 16
    assert (paper.head_width, paper.gate_heads, paper.exit_heads, paper.head_query) == (128, 2, 4, "first")


@pytest.mark.parametrize("recipe", RECIPES)
def test_given_settings_override_recipe(recipe: str) -> None:
    settings = TrainingSettings.from_recipe(recipe, seed=12, gate_lambda=0.5)
    expected = {**dataclasses.asdict(TrainingSettings()), **RECIPES[recipe], "seed": 12, "gate_lambda": 0.5}
    assert dataclasses.asdict(settings) == expected


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipe_names_fields_only(recipe: str) -> None:
    assert set(RECIPES[recipe]) <= set(NAMES)


@pytest.mark.parametrize(
    ("given", "phases"),
    [
        ({}, (4, 2, 1)),
        ({"stage1_epochs": 3}, (3, 1, 0)),  # 2 x 3 / 4 = 1.5 and 1 x 3 / 4 = 0.75, rounded down
        ({"stage1_epochs": 10}, (10, 5, 2)),
        ({"stage1_epochs": 1}, (1, 0, 0)),
        ({"stage1_epochs": 8, "soft_epochs": 0}, (8, 4, 0)),
        ({"stage1_epochs": 2, "ungated_epochs": 2}, (2, 2, 0)),
        ({"ungated_epochs": 0}, (4, 0, 1)),
    ],
)
def test_epochs_keep_the_recipes_shares(
    given: dict[str, int], phases: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "mine", {"stage1_epochs": 4, "ungated_epochs": 2, "soft_epochs": 1})
    settings = TrainingSettings.from_recipe("mine", **given)
    assert (settings.stage1_epochs, settings.ungated_epochs, settings.soft_epochs) == phases


def test_recipe_with_invalid_settings() -> None:
    with pytest.raises(ConfigError, match="soft_epochs must be from 0 to the 2 of --stage1-epochs"):
        TrainingSettings.from_recipe("paper", stage1_epochs=2, soft_epochs=3)
    with pytest.raises(ConfigError, match="gate_heads must be a divisor of head_width 127"):
        TrainingSettings.from_recipe("paper", head_width=127)
    with pytest.raises(ConfigError, match="stage1_epochs must be 1 or more, not 0"):
        TrainingSettings.from_recipe("paper", stage1_epochs=0)


def test_unknown_recipe() -> None:
    with pytest.raises(ConfigError, match="unknown recipe 'rte'") as caught:
        TrainingSettings.from_recipe("rte")
    assert caught.value.hint == "known recipes: best, paper"
