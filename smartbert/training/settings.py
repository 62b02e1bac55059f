"""Every hyper-parameter of training with its meaning and range; the command line is made from this table.

What the defaults train is a jointly trained, self-distilled multi-exit encoder with gates: the exit heads learn with
the encoder (`joint_exits`) and from its last head (`distillation`). On the tasks measured so far the gates add nothing
to the exits (docs/training.md, "Where skipping pays").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

from smartbert.evaluation.metrics import METRICS
from smartbert_runtime.errors import ConfigError


def _setting(default: Any, about: str, *, group: str) -> Any:
    return field(default=default, metadata={"help": about, "group": group})


_BASIC, _CHOICE = "What most people set", "Choice of epoch and thresholds (advanced)"
_STAGES, _LOSS, _OPTIM, _MODEL = (
    "Stages (advanced)",
    "Loss terms (advanced)",
    "Optimizer (advanced)",
    "Model (advanced)",
)

ARM_NAMES = ("smartbert", "no-contrast", "no-hard", "no-gates", "deebert", "pabee", "plain", "truncated")
MIXED_PRECISIONS = ("auto", "no", "bf16")

# The settings that take one of a few words.
CHOICES: dict[str, tuple[str, ...]] = {
    "arm": ARM_NAMES,
    "class_weights": ("none", "balanced"),
    "head_query": ("first", "mean", "learned"),
    "pooling": ("mean", "first"),
    "mixed_precision": MIXED_PRECISIONS,
    "metric": METRICS,
}


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The defaults are the recipe "best", this project's own; RECIPES has the paper's."""

    arm: str = _setting("smartbert", "What to train: the whole method, or a control arm.", group=_BASIC)
    stage1_epochs: int = _setting(4, "Epochs of stage 1: backbone, gates, exit heads.", group=_STAGES)
    ungated_epochs: int = _setting(
        2,
        "First stage-1 epochs, without gates: the network learns before layers can be skipped.",
        group=_STAGES,
    )
    soft_epochs: int = _setting(1, "Then stage-1 epochs with soft gates; the rest are hard.", group=_STAGES)
    stage2_epochs: int = _setting(3, "Epochs of stage 2: every exit head but the last.", group=_STAGES)

    gate_lambda: float = _setting(0.02, "Reward for skipping, lambda in lambda / G: larger skips more.", group=_LOSS)
    eta1: float = _setting(0.0, "Share of the contrastive loss in stage 1 (0 leaves it out).", group=_LOSS)
    eta2: float = _setting(0.0, "Share of the contrastive loss in stage 2 (0 leaves it out).", group=_LOSS)
    temperature1: float = _setting(0.5, "Temperature of stage 1's contrastive loss.", group=_LOSS)
    temperature2: float = _setting(0.55, "Temperature of stage 2's contrastive loss.", group=_LOSS)
    contrast_padding: bool = _setting(
        False, "Count padding in the contrastive losses, as the paper's code does.", group=_LOSS
    )

    target_layers: float = _setting(
        0.0, "Layers to run on average; a penalty on running more replaces lambda / G (0: off).", group=_LOSS
    )
    joint_exits: float = _setting(
        1.0,
        "Weight in stage 1 of the other exit heads' mean loss (0: they learn in stage 2 alone; better with 12 layers).",
        group=_LOSS,
    )
    distillation: float = _setting(
        0.5, "Share of the other exit heads' loss that has them imitate the last one.", group=_LOSS
    )
    distillation_temperature: float = _setting(2.0, "Temperature at which they imitate it.", group=_LOSS)
    class_weights: str = _setting(
        "none", "balanced: a rare label's errors count more, by 1 / its share of the texts.", group=_BASIC
    )

    learning_rate: float = _setting(5e-5, "Learning rate of the backbone.", group=_BASIC)
    head_learning_rate: float = _setting(2.5e-4, "Learning rate of gates, heads and plain classifiers.", group=_OPTIM)
    stage2_learning_rate: float = _setting(1e-3, "Learning rate of stage 2.", group=_OPTIM)
    weight_decay: float = _setting(0.01, "Weight decay, on matrices only.", group=_OPTIM)
    adam_epsilon: float = _setting(1e-8, "Epsilon of AdamW.", group=_OPTIM)
    warmup_steps: int = _setting(10, "Steps over which the learning rate rises.", group=_OPTIM)
    batch_size: int = _setting(32, "Texts a step, on each device.", group=_BASIC)
    gradient_accumulation_steps: int = _setting(1, "Batches summed into one step.", group=_OPTIM)
    mixed_precision: str = _setting(
        "auto",
        "no: fp32; bf16; auto: bf16 where a GPU has it. A CPU with bf16 instructions gains too.",
        group=_OPTIM,
    )
    seed: int = _setting(50, "Seed of weights, order and the validation split.", group=_BASIC)

    max_length: int = _setting(128, "Tokens a text is cut to, in training and later on the device.", group=_BASIC)
    head_width: int = _setting(128, "Width of gates and exit heads.", group=_MODEL)
    gate_heads: int = _setting(2, "Attention heads of a gate.", group=_MODEL)
    exit_heads: int = _setting(4, "Attention heads of an exit head.", group=_MODEL)
    head_query: str = _setting(
        "mean",
        "Query of the heads' attention: first, token 0 (paper); mean, of all tokens; learned, a weight vector: faster.",
        group=_MODEL,
    )
    pooling: str = _setting(
        "mean",
        "What the plain arms classify: mean, of all tokens, or first, token 0 (Hugging Face's class).",
        group=_MODEL,
    )
    keep_layers: int = _setting(0, "Use only the encoder's first layers (0: all).", group=_MODEL)
    gate_bias: float = _setting(
        -3.0, "Where gates start, as a logit: -3 runs every layer, 0 half of it (paper).", group=_MODEL
    )

    metric: str = _setting(
        "accuracy",
        "Figure by which the best epoch is chosen; f1 is the second of two labels', else the mean over labels (macro).",
        group=_BASIC,
    )
    validation_fraction: float = _setting(
        0.1, "Share of the training texts kept back to choose epoch and thresholds.", group=_CHOICE
    )
    skip_threshold: float = _setting(0.5, "Skip probability from which a layer is left out.", group=_CHOICE)
    max_disagreement: float = _setting(
        0.01, "Share of texts that early exits may give another answer than full depth.", group=_CHOICE
    )
    confidence: float = _setting(0.95, "How sure that share must be, judged on the texts kept back.", group=_CHOICE)
    keep_texts: int = _setting(
        0,
        "So many of the texts kept back stay in the checkpoint, with labels: an export judges int8 parts on them.",
        group=_BASIC,
    )

    def __post_init__(self) -> None:
        for name in ("eta1", "eta2", "max_disagreement", "skip_threshold", "distillation"):
            self._require(name, 0.0 <= getattr(self, name) <= 1.0, "from 0 to 1")
        for name in ("validation_fraction", "confidence"):
            self._require(name, 0.0 < getattr(self, name) < 1.0, "between 0 and 1")
        for name, known in CHOICES.items():
            self._require(name, getattr(self, name) in known, "one of " + ", ".join(known))
        for name in ("temperature1", "temperature2", "distillation_temperature", "adam_epsilon"):
            self._require(name, getattr(self, name) > 0.0, "above 0")
        for name in (
            "learning_rate",
            "head_learning_rate",
            "stage2_learning_rate",
            "gate_lambda",
            "target_layers",
            "joint_exits",
            "weight_decay",
        ):
            self._require(name, getattr(self, name) >= 0.0, "0 or more")
        for name in (
            "stage1_epochs",
            "stage2_epochs",
            "batch_size",
            "gradient_accumulation_steps",
            "head_width",
        ):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for item in fields(self):
            if item.type == "float":
                self._require(item.name, math.isfinite(getattr(self, item.name)), "a number")
        self._require("seed", 0 <= self.seed < 2**32, "0 or more, and below 2^32")
        self._require("warmup_steps", self.warmup_steps >= 0, "0 or more")
        for name in ("keep_layers", "keep_texts"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        within = f"from 0 to the {self.stage1_epochs} of --stage1-epochs"
        self._require("ungated_epochs", 0 <= self.ungated_epochs <= self.stage1_epochs, within)
        left = self.stage1_epochs - self.ungated_epochs
        self._require("soft_epochs", 0 <= self.soft_epochs <= left, f"{within}, --ungated-epochs counted")
        for name in ("gate_heads", "exit_heads"):
            heads = getattr(self, name)
            self._require(
                name,
                heads >= 1 and (self.head_query == "learned" or self.head_width % heads == 0),
                "1 or more" if self.head_query == "learned" else f"a divisor of head_width {self.head_width}",
            )

    def _require(self, name: str, valid: bool, wanted: str) -> None:
        if not valid:
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"{name} must be {wanted}, not {getattr(self, name)}", hint=f"change {option}")

    def model_settings(self) -> dict[str, Any]:
        """The settings that belong to the model's config."""
        names = ("head_width", "gate_heads", "exit_heads", "head_query", "gate_bias", "skip_threshold")
        # transformers 5 keeps `max_length` for text generation and refuses it in a config.
        return {**{name: getattr(self, name) for name in names}, "max_input_length": self.max_length}

    @classmethod
    def help(cls) -> dict[str, tuple[str, str]]:
        """name -> (help text, group) for every setting."""
        return {item.name: (item.metadata["help"], item.metadata["group"]) for item in fields(cls)}

    @classmethod
    def parse(cls, entry: str) -> tuple[str, Any]:
        """`learning_rate=1e-4` -> ("learning_rate", 0.0001); ConfigError for anything else."""
        name, _, value = entry.partition("=")
        kinds = {item.name: str(item.type) for item in fields(cls)}
        hint = "like learning_rate=1e-4; smartbert-train --help lists them"
        if name not in kinds or not value:
            raise ConfigError(f"{entry!r} is not a setting", hint=hint)
        try:
            if kinds[name] == "bool":
                return name, {"true": True, "false": False}[value.lower()]
            return name, {"int": int, "float": float, "str": str}[kinds[name]](value)
        except (ValueError, KeyError) as err:
            raise ConfigError(f"{entry!r}: {name} is of type {kinds[name]}", hint=hint) from err

    @classmethod
    def from_recipe(cls, recipe: str, **given: Any) -> TrainingSettings:
        """The recipe's settings, overridden by those given; ConfigError for an unknown recipe.

        Another number of stage-1 epochs keeps the recipe's shares of ungated and soft ones, rounded down, unless these
        are given, too: 3 instead of best's 4 (2 ungated, 1 soft) are 1 ungated, 0 soft and 2 hard.
        """
        if recipe not in RECIPES:
            raise ConfigError(f"unknown recipe {recipe!r}", hint="known recipes: " + ", ".join(RECIPES))
        base = cls(**RECIPES[recipe])
        epochs = int(given.get("stage1_epochs", base.stage1_epochs))
        shares = {
            name: getattr(base, name) * epochs // base.stage1_epochs for name in ("ungated_epochs", "soft_epochs")
        }
        return replace(base, **{**shares, **given})


# "best" was chosen on TREC-6 with both encoders: docs/training.md has the figures. "paper" is the RTE script of Hu et
# al., IJCAI 2023, with padding counted in the contrastive losses as in the paper's code, and gates starting half open.
RECIPES: dict[str, dict[str, Any]] = {
    "best": {},
    "paper": {
        "stage1_epochs": 5,
        "ungated_epochs": 0,
        "soft_epochs": 3,
        "stage2_epochs": 4,
        "gate_lambda": 0.04,
        "target_layers": 0.0,
        "eta1": 0.01,
        "eta2": 0.05,
        "temperature1": 0.5,
        "temperature2": 0.55,
        "contrast_padding": True,
        "joint_exits": 0.0,
        "distillation": 0.0,
        "class_weights": "none",
        "learning_rate": 2e-5,
        "head_learning_rate": 2e-5,
        "stage2_learning_rate": 2e-5,
        "batch_size": 16,
        "head_width": 128,
        "gate_heads": 2,
        "exit_heads": 4,
        "head_query": "first",
        "gate_bias": 0.0,
    },
}
