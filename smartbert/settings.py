"""Every hyper-parameter of training with its meaning and range; the command line is made from this table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from smartbert_runtime.errors import ConfigError


def _setting(default: Any, about: str, *, group: str) -> Any:
    return field(default=default, metadata={"help": about, "group": group})


_STAGES, _LOSS, _OPTIM, _MODEL, _CHOICE = "Stages", "Loss terms", "Optimiser", "Model", "Thresholds"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The defaults are this project's; the paper's RTE script is named where it differs (Hu et al., IJCAI 2023)."""

    stage1_epochs: int = _setting(4, "Epochs of stage 1: backbone, gates, last exit head. Paper: 5.", group=_STAGES)
    soft_epochs: int = _setting(2, "First stage-1 epochs with soft gates; the rest are hard. Paper: 3.", group=_STAGES)
    stage2_epochs: int = _setting(3, "Epochs of stage 2: the other exit heads. Paper: 4.", group=_STAGES)

    gate_lambda: float = _setting(
        0.05, "Reward for skipping, lambda in lambda / G: larger skips more. Paper: 0.04.", group=_LOSS
    )
    eta1: float = _setting(0.01, "Share of the contrastive loss in stage 1 (0 leaves it out).", group=_LOSS)
    eta2: float = _setting(0.05, "Share of the contrastive loss in stage 2 (0 leaves it out).", group=_LOSS)
    temperature1: float = _setting(0.5, "Temperature of stage 1's contrastive loss.", group=_LOSS)
    temperature2: float = _setting(0.55, "Temperature of stage 2's contrastive loss.", group=_LOSS)
    contrast_padding: bool = _setting(
        False, "Count padding in the contrastive losses, as the paper's code does.", group=_LOSS
    )

    class_weights: str = _setting(
        "none", "none, or balanced: a rare label's errors count more, by 1 / its share of the texts.", group=_LOSS
    )

    learning_rate: float = _setting(5e-5, "Learning rate of the backbone. Paper: 2e-5.", group=_OPTIM)
    head_learning_rate: float = _setting(
        2.5e-4, "Learning rate of gates and last exit head. Paper: 2e-5.", group=_OPTIM
    )
    stage2_learning_rate: float = _setting(1e-3, "Learning rate of stage 2's exit heads. Paper: 2e-5.", group=_OPTIM)
    weight_decay: float = _setting(0.01, "Weight decay, on matrices only.", group=_OPTIM)
    adam_epsilon: float = _setting(1e-8, "Epsilon of AdamW.", group=_OPTIM)
    warmup_steps: int = _setting(10, "Steps over which the learning rate rises.", group=_OPTIM)
    batch_size: int = _setting(32, "Texts a step, on each device. Paper: 16.", group=_OPTIM)
    gradient_accumulation_steps: int = _setting(1, "Batches summed into one step.", group=_OPTIM)
    bf16: bool = _setting(False, "Train in bfloat16 mixed precision.", group=_OPTIM)
    seed: int = _setting(50, "Seed of weights, order and the validation split.", group=_OPTIM)

    max_length: int = _setting(128, "Tokens a text is cut to, in training and later on the device.", group=_MODEL)
    head_width: int = _setting(128, "Width of gates and exit heads.", group=_MODEL)
    gate_heads: int = _setting(2, "Attention heads of a gate.", group=_MODEL)
    exit_heads: int = _setting(4, "Attention heads of an exit head.", group=_MODEL)
    gate_bias: float = _setting(
        -3.0, "Where gates start, as a logit: -3 runs every layer, 0 half of it (paper).", group=_MODEL
    )

    validation_fraction: float = _setting(
        0.1, "Share of the training texts kept back to choose epoch and thresholds.", group=_CHOICE
    )
    skip_threshold: float = _setting(0.5, "Skip probability from which a layer is left out.", group=_CHOICE)
    max_disagreement: float = _setting(
        0.01, "Share of texts that early exits may give another answer than full depth.", group=_CHOICE
    )
    confidence: float = _setting(0.95, "How sure that share must be, judged on the texts kept back.", group=_CHOICE)

    def __post_init__(self) -> None:
        for name in ("eta1", "eta2", "max_disagreement", "skip_threshold"):
            self._require(name, 0.0 <= getattr(self, name) <= 1.0, "from 0 to 1")
        for name in ("validation_fraction", "confidence"):
            self._require(name, 0.0 < getattr(self, name) < 1.0, "between 0 and 1")
        self._require("class_weights", self.class_weights in ("none", "balanced"), "none or balanced")
        for name in ("temperature1", "temperature2", "adam_epsilon"):
            self._require(name, getattr(self, name) > 0.0, "above 0")
        for name in (
            "learning_rate",
            "head_learning_rate",
            "stage2_learning_rate",
            "gate_lambda",
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
        soft = f"from 0 to the {self.stage1_epochs} of --stage1-epochs"
        self._require("soft_epochs", 0 <= self.soft_epochs <= self.stage1_epochs, soft)
        for name in ("gate_heads", "exit_heads"):
            heads = getattr(self, name)
            self._require(
                name,
                heads >= 1 and self.head_width % heads == 0,
                f"a divisor of head_width {self.head_width}",
            )

    def _require(self, name: str, fine: bool, wanted: str) -> None:
        if not fine:
            option = "--" + name.replace("_", "-")
            raise ConfigError(f"{name} must be {wanted}, not {getattr(self, name)}", hint=f"change {option}")

    def model_settings(self) -> dict[str, Any]:
        """The settings that belong to the model's config."""
        names = ("head_width", "gate_heads", "exit_heads", "gate_bias", "skip_threshold")
        # transformers 5 keeps `max_length` for text generation and refuses it in a config.
        return {**{name: getattr(self, name) for name in names}, "max_input_length": self.max_length}

    @classmethod
    def help(cls) -> dict[str, tuple[str, str]]:
        """name -> (help text, group) for every setting."""
        return {item.name: (item.metadata["help"], item.metadata["group"]) for item in fields(cls)}
