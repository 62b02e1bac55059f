"""The settings that steer when a layer is skipped and when a head answers.

Shape letters: b batch, c classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.rules import RULES, History, Said, entropy_of_one, normalized_entropy
from smartbert_runtime.errors import ConfigError


def logit(probability: float) -> float:
    """The value whose sigmoid is `probability`; 0 -> -inf, 1 -> +inf."""
    if probability <= 0.0:
        return -math.inf
    if probability >= 1.0:
        return math.inf
    return math.log(probability / (1.0 - probability))


def sigmoid(value: float) -> float:
    """The probability whose logit is `value`, without overflow."""
    return 0.5 * (1.0 + math.tanh(0.5 * value))


def should_skip(skip_logit_b: NDArray[np.floating], threshold: float) -> NDArray[np.bool_]:
    """Rows whose gate says that the layer can be left out: sigmoid(skip_logit) >= threshold.

    Compared as logits, because a sigmoid saturates to exactly 1.0 in float32: [-3.0, 0.4] at 0.5 -> [False, True].
    """
    skip: NDArray[np.bool_] = skip_logit_b.astype(np.float64) >= logit(threshold)
    return skip


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How one text's way through the layers is decided.

    skip_threshold: a layer is skipped when its gate's skip probability reaches it (0 to 1).
    rule: when an exit head answers: entropy, max-probability, patience or confident-patience (`rules.py`).
    exit_threshold: what the rule's uncertainty must be below, 0 (never) to 1; normalized entropy for most.
    exit_thresholds: one for each layer's head, in place of the one for all.
    patience: heads in a row, for the rules that count them.
    no_skip, no_exit: never skip, never exit early; booleans, because no threshold says "never" exactly.
    max_layers: after this many layers run, the last one's head answers; None for no limit.
    deadline_ms: once so many milliseconds have passed since the text's batch began, the next head answers: after the
    layer that is being run, and never a second one; None for no limit.
    """

    rule: str = "entropy"
    skip_threshold: float = 0.5
    exit_threshold: float = 0.0
    exit_thresholds: tuple[float, ...] | None = None
    patience: int = 2
    no_skip: bool = False
    no_exit: bool = False
    max_layers: int | None = None
    deadline_ms: float | None = None

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigError(f"unknown exit rule {self.rule!r}", hint="known rules: " + ", ".join(RULES))
        given = [("skip_threshold", self.skip_threshold), ("exit_threshold", self.exit_threshold)]
        given += [("each of exit_thresholds", value) for value in self.exit_thresholds or ()]
        for name, value in given:
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name} must be from 0 to 1, not {value}", hint="see smartbert-infer --help")
        if self.patience < 1:
            raise ConfigError(f"patience must be 1 or more, not {self.patience}", hint="change --patience")
        if self.deadline_ms is not None and not self.deadline_ms > 0.0:
            raise ConfigError(f"deadline_ms must be more than 0, not {self.deadline_ms}", hint="change --deadline-ms")
        if self.max_layers is not None and self.max_layers < 1:
            raise ConfigError(f"max_layers must be 1 or more, not {self.max_layers}", hint="change --max-layers")

    def skips(self, skip_logit_b: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Rows that leave the layer out."""
        return should_skip(skip_logit_b, self.skip_threshold)

    def skips_one(self) -> Callable[[float], bool]:
        """`skips` for one row's number."""
        least = logit(self.skip_threshold)
        return lambda skip_logit: skip_logit >= least

    def history(self, batch: int) -> History | None:
        """Where the rule keeps what heads said; None for a rule that does not look back."""
        return History(batch) if RULES[self.rule].remembers and not self.no_exit else None

    def exits(
        self,
        logits_bc: NDArray[np.float32],
        layer: int = 1,
        history: History | None = None,
        asked: NDArray[np.bool_] | None = None,
        *,
        entropy_b: NDArray[np.float64] | None = None,
    ) -> NDArray[np.bool_]:
        """Rows that answer now, of those whose head after `layer` (from 1) was asked.

        history: what `history` gave at the start; asked: which of its rows these are, None for all.
        entropy_b: the rows' normalized entropy, where it is known.
        """
        threshold = self.threshold(layer)
        entropy_b = normalized_entropy(logits_bc) if entropy_b is None else entropy_b
        agreed_b = sure_b = None
        if history is not None:
            asked = np.ones(len(logits_bc), dtype=bool) if asked is None else asked
            history.hear(asked, logits_bc, entropy_b, threshold)
            agreed_b, sure_b = history.agreed_b[asked], history.sure_b[asked]
        return RULES[self.rule].exits(
            Said(
                logits_bc=logits_bc,
                entropy_b=entropy_b,
                threshold=threshold,
                patience=self.patience,
                agreed_b=agreed_b,
                sure_b=sure_b,
            )
        )

    def exits_one(self) -> Callable[[NDArray[np.float32], int], tuple[float, bool]]:
        """`exits` for one row whose heads are asked one after another: of (1,c) and the layer entropy and decision."""
        history = self.history(1)

        def ask(logits_bc: NDArray[np.float32], layer: int) -> tuple[float, bool]:
            entropy_b = normalized_entropy(logits_bc)
            return float(entropy_b[0]), bool(self.exits(logits_bc, layer, history, entropy_b=entropy_b)[0])

        def ask_entropy(logits_bc: NDArray[np.float32], layer: int) -> tuple[float, bool]:
            # The rule that nearly every text is decided by, without its arrays.
            entropy = entropy_of_one(logits_bc[0].tolist())
            return entropy, entropy < self.threshold(layer)

        return ask_entropy if self.rule == "entropy" else ask

    def threshold(self, layer: int) -> float:
        """The exit threshold after `layer`, from 1."""
        return self.exit_threshold if self.exit_thresholds is None else self.exit_thresholds[layer - 1]

    def at_full_depth(self) -> Policy:
        """The same policy with every layer run and only the last head asked."""
        return replace(self, no_skip=True, no_exit=True, max_layers=None, deadline_ms=None)
