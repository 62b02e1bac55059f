"""The runs of a study: variations of one recipe, each with every seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smartbert.backbones import read_backbone_config
from smartbert.training.settings import RECIPES, TrainingSettings
from smartbert_runtime.errors import ConfigError
from studies.training.runs import Run
from studies.training.tasks import Task

# A run's label -> the settings that differ from the table's.
Variations = dict[str, dict[str, Any]]
WARM_START = "warm-start-from-plain"
# The paper's weights of its contrastive losses, which the default recipe leaves out.
CONTRAST = {name: RECIPES["paper"][name] for name in ("eta1", "eta2")}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all runs of one table share.

    settings: override the recipe's defaults in every run.
    """

    task: Task
    model: str
    data: Path | None
    max_train_samples: int | None
    note: str
    settings: dict[str, Any]

    def run(self, label: str, start: Run | None = None, **settings: Any) -> Run:
        """One run; `settings` override the table's; start: the run whose checkpoint it starts from."""
        overrides = {"metric": self.task.metric, **self.settings, **settings}
        return Run(
            task=self.task,
            model=self.model,
            start=start,
            label=label,
            settings=TrainingSettings.from_recipe("best", **overrides),
            data=self.data,
            max_train_samples=self.max_train_samples,
            note=self.note,
        )


@dataclass(frozen=True, kw_only=True)
class Study:
    """A question and the runs that answer it; `variations` depend on the encoder's layers and the table's settings."""

    about: str
    variations: Callable[[int, TrainingSettings], Variations]


def _arms(layers: int, own: TrainingSettings) -> Variations:
    """In the order in which they are trained: the most important comparisons first."""
    return {
        "smartbert": {},
        "plain-mean": {"arm": "plain", "pooling": "mean"},
        "deebert": {"arm": "deebert"},
        "plain-first": {"arm": "plain", "pooling": "first"},
        **_truncated(layers),
        "with-contrast": CONTRAST,
        **_joint_exits(own),
        "no-hard": {"arm": "no-hard"},
        "recipe-paper": RECIPES["paper"],
    }


def _joint_exits(own: TrainingSettings) -> Variations:
    """The opposite of the table's own choice whether early exit heads are trained jointly with the encoder."""
    return {"no-joint-exits": {"joint_exits": 0.0}} if own.joint_exits else {"joint-exits": {"joint_exits": 1.0}}


def _truncated(layers: int) -> Variations:
    """A half and a third of the layers: 2x and 3x fewer MAC without any decisions."""
    kept = {max(1, layers // share): None for share in (2, 3)}
    return {f"truncated-{number}": {"arm": "truncated", "keep_layers": number} for number in kept}


def _options(layers: int, own: TrainingSettings) -> Variations:
    return {
        "smartbert": {},
        "recipe-paper": RECIPES["paper"],
        "no-distillation": {"distillation": 0.0},
        **_joint_exits(own),
        "first-token-queries": {"head_query": "first"},
        "with-contrast": CONTRAST,
        "contrast-on-padding": {**CONTRAST, "contrast_padding": True},
        "gates-from-the-start": {"ungated_epochs": 0, "soft_epochs": own.stage1_epochs // 2},
        "gates-start-half-open": {"gate_bias": 0.0},
        "target-two-thirds": {"target_layers": round(layers * 2 / 3, 2)},
        "head-width-64": {"head_width": 64},
        "head-width-256": {"head_width": 256},
        # From a plain classifier instead of ungated epochs; it was trained for as many.
        WARM_START: {
            "ungated_epochs": 0,
            "soft_epochs": own.soft_epochs,
            "stage1_epochs": own.stage1_epochs - own.ungated_epochs,
        },
    }


def _gates(layers: int, own: TrainingSettings) -> Variations:
    return {
        "no-gates": {"arm": "no-gates"},
        "smartbert": {},
        "lambda-0.05": {"gate_lambda": 0.05},
        "lambda-0.1": {"gate_lambda": 0.1},
        "lambda-0.2": {"gate_lambda": 0.2},
        "target-two-thirds": {"target_layers": round(layers * 2 / 3, 2)},
        "target-half": {"target_layers": layers / 2},
        "target-third": {"target_layers": round(layers / 3, 2)},
        **_truncated(layers),
    }


STUDIES: Mapping[str, Study] = {
    "arms": Study(about="SmartBERT against its rivals on the same encoder", variations=_arms),
    "options": Study(about="the default recipe, one option after another changed", variations=_options),
    "gates": Study(about="where skipping pays: rewards and targets for skipping, against no gates", variations=_gates),
}


def study_runs(setup: Setup, study: str, seeds: Sequence[int], labels: Sequence[str] = ()) -> list[Run]:
    """Every run of a study with every seed, seed by seed; labels: only these runs, in this order.

    Raises ConfigError for an unknown study or label.
    """
    variations = _variations(setup, study)
    for label in labels:
        if label not in variations:
            raise ConfigError(f"unknown arm {label!r}", hint="known arms: " + ", ".join(variations))
    runs = []
    for seed in seeds:
        epochs = max(1, _own(setup).ungated_epochs)
        plain = setup.run(
            "plain-start", arm="plain", pooling="mean", seed=seed, stage1_epochs=epochs, ungated_epochs=0, soft_epochs=0
        )
        for label in labels or variations:
            start = plain if label == WARM_START else None
            runs.append(setup.run(label, start=start, **{**variations[label], "seed": seed}))
    return runs


def _variations(setup: Setup, study: str) -> Variations:
    if study not in STUDIES:
        raise ConfigError(f"unknown study {study!r}", hint="known studies: " + ", ".join(STUDIES))
    layers = int(read_backbone_config(setup.model)["num_hidden_layers"])
    return STUDIES[study].variations(layers, _own(setup))


def _own(setup: Setup) -> TrainingSettings:
    """The table's own settings, which a study varies."""
    return TrainingSettings.from_recipe("best", **setup.settings)
