"""settings.py: defaults, the range of every hyper-parameter named with its option, and the help texts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from smartbert.settings import TrainingSettings
from smartbert_runtime.errors import ConfigError

DEFAULTS = {
    "stage1_epochs": 4,
    "soft_epochs": 2,
    "stage2_epochs": 3,
    "gate_lambda": 0.05,
    "eta1": 0.01,
    "eta2": 0.05,
    "temperature1": 0.5,
    "temperature2": 0.55,
    "contrast_padding": False,
    "class_weights": "none",
    "learning_rate": 5e-5,
    "head_learning_rate": 2.5e-4,
    "stage2_learning_rate": 1e-3,
    "weight_decay": 0.01,
    "adam_epsilon": 1e-8,
    "warmup_steps": 10,
    "batch_size": 32,
    "gradient_accumulation_steps": 1,
    "bf16": False,
    "seed": 50,
    "max_length": 128,
    "head_width": 128,
    "gate_heads": 2,
    "exit_heads": 4,
    "gate_bias": -3.0,
    "validation_fraction": 0.1,
    "skip_threshold": 0.5,
    "max_disagreement": 0.01,
    "confidence": 0.95,
}

# Setting, a value just outside its range, what the message says is wanted.
OUTSIDE: list[tuple[str, Any, str]] = [
    *((name, value, "from 0 to 1") for name in ("eta1", "eta2") for value in (-0.01, 1.01)),
    *((name, value, "from 0 to 1") for name in ("max_disagreement", "skip_threshold") for value in (-0.01, 1.01)),
    *((name, value, "between 0 and 1") for name in ("validation_fraction", "confidence") for value in (0.0, 1.0)),
    *((name, 0.0, "above 0") for name in ("temperature1", "temperature2", "adam_epsilon")),
    *((name, -1e-9, "0 or more") for name in ("learning_rate", "head_learning_rate", "stage2_learning_rate")),
    *((name, -1e-9, "0 or more") for name in ("gate_lambda", "weight_decay")),
    *((name, 0, "1 or more") for name in ("stage1_epochs", "stage2_epochs", "batch_size", "head_width")),
    ("gradient_accumulation_steps", 0, "1 or more"),
    ("warmup_steps", -1, "0 or more"),
    ("class_weights", "some", "none or balanced"),
    ("soft_epochs", -1, "from 0 to the 4 of --stage1-epochs"),
    ("soft_epochs", 5, "from 0 to the 4 of --stage1-epochs"),  # stage 1 has 4
    ("gate_heads", 0, "a divisor of head_width 128"),
    ("gate_heads", 3, "a divisor of head_width 128"),
    ("exit_heads", 0, "a divisor of head_width 128"),
    ("exit_heads", 5, "a divisor of head_width 128"),
    ("seed", -1, "0 or more"),  # numpy takes no negative seed
]

# The last values that are still allowed.
INSIDE: list[tuple[str, Any]] = [
    *((name, value) for name in ("eta1", "eta2", "max_disagreement", "skip_threshold") for value in (0.0, 1.0)),
    *((name, 0.0) for name in ("learning_rate", "head_learning_rate", "stage2_learning_rate")),
    *((name, 0.0) for name in ("gate_lambda", "weight_decay")),
    *((name, 1) for name in ("stage2_epochs", "batch_size", "gradient_accumulation_steps", "gate_heads", "exit_heads")),
    ("warmup_steps", 0),
    ("soft_epochs", 0),
    ("soft_epochs", 4),
    ("gate_heads", 128),
    ("seed", 0),
]


def test_defaults_are_those_documented() -> None:
    assert dataclasses.asdict(TrainingSettings()) == DEFAULTS


@pytest.mark.parametrize(("name", "value", "wanted"), OUTSIDE)
def test_a_value_outside_its_range_is_refused_with_its_option(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainingSettings(**{name: value})
    assert str(caught.value).startswith(f"{name} must be ")
    assert wanted in str(caught.value)
    assert str(value) in str(caught.value)
    assert caught.value.hint == "change --" + name.replace("_", "-")


@pytest.mark.parametrize(("name", "value"), INSIDE)
def test_the_ends_of_a_range_belong_to_it(name: str, value: Any) -> None:
    assert getattr(TrainingSettings(**{name: value}), name) == value


@pytest.mark.parametrize("name", [name for name, value in DEFAULTS.items() if type(value) is float])
def test_not_a_number_is_refused_everywhere(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        TrainingSettings(**{name: math.nan})  # type: ignore[arg-type]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainingSettings().seed = 1  # type: ignore[misc]


def test_every_field_has_a_help_text_and_a_group() -> None:
    about = TrainingSettings.help()
    assert list(about) == list(DEFAULTS)
    for name, (text, group) in about.items():
        assert len(text) > 15 and text.endswith("."), name
        assert group in {"Stages", "Loss terms", "Optimiser", "Model", "Thresholds"}, name


def test_model_settings_are_fields_of_the_models_config() -> None:
    settings = TrainingSettings(max_length=20, head_width=8, gate_heads=4, exit_heads=8, gate_bias=-1.0)
    assert settings.model_settings() == {
        "max_input_length": 20,
        "head_width": 8,
        "gate_heads": 4,
        "exit_heads": 8,
        "gate_bias": -1.0,
        "skip_threshold": 0.5,
    }
