"""Which runs a table is made of: arms by seeds, or one recipe and its variations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smartbert.backbones import read_backbone_config
from smartbert.experiments.runs import Run
from smartbert.experiments.tasks import Task
from smartbert.training.settings import RECIPES, TrainingSettings
from smartbert_runtime.errors import ConfigError

# The order in which they are trained: what the targets are about first.
GLUE_ARMS = ("smartbert", "plain-mean", "deebert", "plain-first", "truncated", "no-contrast", "no-hard")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What all runs of one table share.

    settings: replaced in the recipe's defaults for every arm.
    """

    task: Task
    model: str
    data: Path | None
    max_train_samples: int | None
    note: str
    settings: dict[str, Any]

    def run(self, label: str, *, model: str | None = None, **settings: Any) -> Run:
        """One run, its settings in place of the table's; model: start from another checkpoint than the encoder."""
        wanted = {"metric": self.task.metric, **self.settings, **settings}
        return Run(
            task=self.task,
            model=model or self.model,
            backbone=Path(self.model).name,
            label=label,
            settings=TrainingSettings(**wanted),
            data=self.data,
            max_train_samples=self.max_train_samples,
            note=self.note,
        )


def glue_runs(setup: Setup, arms: Sequence[str], seeds: Sequence[int]) -> Iterator[Run]:
    """Every arm with every seed, seed by seed."""
    for name in arms:
        if name not in GLUE_ARMS:
            raise ConfigError(f"unknown arm {name!r}", hint="known arms: " + ", ".join(GLUE_ARMS))
    layers = int(read_backbone_config(setup.model)["num_hidden_layers"])
    for seed in seeds:
        for name in arms:
            if name.startswith("plain-"):
                yield setup.run(name, arm="plain", pooling=name.removeprefix("plain-"), seed=seed)
            elif name == "truncated":
                # A half and a third of the layers: what 2x and 3x fewer MAC buy without deciding anything.
                for kept in (layers // 2, layers // 3):
                    yield setup.run(f"truncated-{kept}", arm="truncated", keep_layers=kept, seed=seed)
            else:
                yield setup.run(name, arm=name, seed=seed)


def plain_runs(setup: Setup, seeds: Sequence[int]) -> list[Run]:
    """Plain fine-tuning, which a warm start needs first."""
    return [setup.run("plain-mean", arm="plain", pooling="mean", seed=seed) for seed in seeds]


def option_runs(setup: Setup, seeds: Sequence[int], work: Path) -> Iterator[Run]:
    """The best recipe, the paper's, and the best one with one of its parts changed at a time.

    work: where the checkpoints of `plain_runs` lie.
    """
    layers = int(read_backbone_config(setup.model)["num_hidden_layers"])
    best = TrainingSettings(**setup.settings)
    changes: dict[str, dict[str, Any]] = {
        "smartbert": {},
        "recipe-paper": RECIPES["paper"],
        "no-distillation": {"distillation": 0.0},
        "no-joint-exits": {"joint_exits": 0.0},
        "first-token-queries": {"head_query": "first"},
        "gates-from-the-start": {"plain_epochs": 0, "soft_epochs": best.stage1_epochs // 2},
        "gates-start-half-open": {"gate_bias": 0.0},
        "contrast-on-padding": {"contrast_padding": True},
        "head-width-64": {"head_width": 64},
        "head-width-256": {"head_width": 256},
        "target-two-thirds": {"target_layers": round(layers * 2 / 3, 2)},
        "target-half": {"target_layers": layers / 2},
        "lambda-0.1": {"gate_lambda": 0.1},
    }
    for seed in seeds:
        for name, change in changes.items():
            yield setup.run(name, **{**change, "seed": seed})
    for plain in plain_runs(setup, seeds):
        yield setup.run(
            "warm-start-from-plain",
            model=str(plain.checkpoint(work)),
            seed=plain.settings.seed,
            plain_epochs=0,
            stage1_epochs=best.stage1_epochs - best.plain_epochs,
        )
