"""The control arms: what SmartBERT is compared with, trained on the same encoder, texts and seeds.

An arm fixes some of the settings; `plain` and `truncated` also train another model. `smartbert` is a jointly trained,
self-distilled multi-exit encoder with gates, and `no-gates` the same without gates: on the tasks measured so far the
gates add nothing to the exits (docs/training.md, "Where skipping pays").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from smartbert.training.settings import TrainingSettings
from smartbert_runtime.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What an arm is, and which settings it fixes.

    unused: settings without effect on it; they are reset to their defaults, so that changing one does not make the arm
    count as a different run. plain: one classifier after the last layer. gated: has skipping gates.
    """

    about: str
    fixes: Callable[[TrainingSettings], Mapping[str, Any]] = lambda settings: {}
    unused: tuple[str, ...] = ()
    plain: bool = False
    gated: bool = True


def _no_gates(settings: TrainingSettings) -> dict[str, Any]:
    """Every epoch of stage 1 is ungated."""
    return {"ungated_epochs": settings.stage1_epochs, "soft_epochs": 0}


def _deebert(settings: TrainingSettings) -> dict[str, Any]:
    """Fine-tune with the last head, freeze, train the other heads on the labels: two stages, as DeeBERT has them."""
    return {
        **_no_gates(settings),
        "eta1": 0.0,
        "eta2": 0.0,
        "joint_exits": 0.0,
        "distillation": 0.0,
    }


def _plain(settings: TrainingSettings) -> dict[str, Any]:
    """One phase: there is nothing to gate."""
    return {"ungated_epochs": 0, "soft_epochs": 0}


_OF_GATES = ("gate_lambda", "target_layers", "gate_bias")
_OF_LOSSES = ("temperature1", "temperature2", "contrast_padding", "distillation_temperature")
_OF_HEADS = ("head_width", "gate_heads", "exit_heads", "head_query", "max_disagreement", "confidence")
_OF_SMARTBERT = (
    *_OF_GATES,
    *_OF_LOSSES,
    *_OF_HEADS,
    "stage2_epochs",
    "stage2_learning_rate",
    "eta1",
    "eta2",
    "joint_exits",
    "distillation",
)

ARMS: dict[str, Arm] = {
    "smartbert": Arm(about="gates and exits, the whole method"),
    "no-contrast": Arm(
        about="SmartBERT without the contrastive losses", fixes=lambda settings: {"eta1": 0.0, "eta2": 0.0}
    ),
    "no-hard": Arm(
        about="SmartBERT without hard gate weights in training",
        fixes=lambda settings: {"soft_epochs": settings.stage1_epochs - settings.ungated_epochs},
    ),
    "no-gates": Arm(
        about="SmartBERT's exit heads and losses without gates", fixes=_no_gates, unused=_OF_GATES, gated=False
    ),
    "deebert": Arm(
        about="entropy exits, no gates (Xin et al., ACL 2020)",
        fixes=_deebert,
        unused=(*_OF_GATES, *_OF_LOSSES),
        gated=False,
    ),
    "pabee": Arm(
        about="patience exits, no gates (Zhou et al., NeurIPS 2020), on DeeBERT's training",
        fixes=_deebert,
        unused=(*_OF_GATES, *_OF_LOSSES),
        gated=False,
    ),
    "plain": Arm(about="all layers, one classifier", fixes=_plain, unused=_OF_SMARTBERT, plain=True, gated=False),
    "truncated": Arm(
        about="plain, on the first --keep-layers layers only",
        fixes=_plain,
        unused=_OF_SMARTBERT,
        plain=True,
        gated=False,
    ),
}


def settings_of(settings: TrainingSettings) -> TrainingSettings:
    """The settings that the arm named in them actually trains with; ConfigError where one that it needs is missing."""
    if settings.arm == "truncated" and not settings.keep_layers:
        raise ConfigError("the arm 'truncated' needs a number of layers", hint="give --keep-layers")
    arm = ARMS[settings.arm]
    changes = {**{name: getattr(TrainingSettings(), name) for name in arm.unused}, **arm.fixes(settings)}
    return replace(settings, **changes)
