"""Policy: which exit rule, thresholds and limits a run uses, applied to one row or to many.

Shape letters: b batch, c classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from smartbert_runtime.decisions.rules import (
    RULES,
    HeadOutputs,
    History,
    logit,
    normalized_entropy_of_one,
    should_skip,
)
from smartbert_runtime.errors import ConfigError


class NotGiven(float):
    """A threshold that nobody has chosen; `SmartBert.classify` then takes the package's own (`with_defaults_of`)."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How one text's way through the layers is decided.

    `SmartBert.classify` takes what is not given of skipping, and of exiting, from the package's own policy.

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
    skip_threshold: float = NotGiven(0.5)
    exit_threshold: float = NotGiven(0.0)
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
        """Rows that skip the layer."""
        return should_skip(skip_logit_b, self.skip_threshold)

    def skips_one(self) -> Callable[[float], bool]:
        """`skips` for one row's number."""
        least = logit(self.skip_threshold)
        return lambda skip_logit: skip_logit >= least

    def history(self, batch: int) -> History | None:
        """Where the rule keeps what earlier heads returned; None for a rule without memory."""
        return History(batch) if RULES[self.rule].remembers and not self.no_exit else None

    def uncertainty(self, logits_bc: NDArray[np.float32]) -> NDArray[np.float64]:
        """What the rule measures of each row, 0 (sure) to 1."""
        return RULES[self.rule].uncertainty(logits_bc)

    def exits(
        self,
        logits_bc: NDArray[np.float32],
        layer: int = 1,
        history: History | None = None,
        evaluated: NDArray[np.bool_] | None = None,
        *,
        uncertainty_b: NDArray[np.float64] | None = None,
    ) -> NDArray[np.bool_]:
        """Rows that answer now, of those whose head after `layer` (from 1) was evaluated.

        history: what `history` returned at the start; evaluated: which of its rows these are, None for all.
        uncertainty_b: `uncertainty(logits_bc)`, where it is known.
        """
        threshold = self.threshold(layer)
        uncertainty_b = self.uncertainty(logits_bc) if uncertainty_b is None else uncertainty_b
        agreed_b = sure_b = None
        if history is not None:
            evaluated = np.ones(len(logits_bc), dtype=bool) if evaluated is None else evaluated
            history.update(evaluated, logits_bc, uncertainty_b, threshold)
            agreed_b, sure_b = history.agreed_b[evaluated], history.sure_b[evaluated]
        return RULES[self.rule].exits(
            HeadOutputs(
                uncertainty_b=uncertainty_b,
                threshold=threshold,
                patience=self.patience,
                agreed_b=agreed_b,
                sure_b=sure_b,
            )
        )

    def exits_one(self) -> Callable[[NDArray[np.float32], int], tuple[float, bool]]:
        """`exits` for one row: from a head's logits (1,c) and its layer, the uncertainty and whether it answers."""
        history = self.history(1)

        def by_rule(logits_bc: NDArray[np.float32], layer: int) -> tuple[float, bool]:
            uncertainty_b = self.uncertainty(logits_bc)
            exits_b = self.exits(logits_bc, layer, history, uncertainty_b=uncertainty_b)
            return float(uncertainty_b[0]), bool(exits_b[0])

        def by_entropy(logits_bc: NDArray[np.float32], layer: int) -> tuple[float, bool]:
            # The rule that decides nearly every text, without its arrays.
            entropy = normalized_entropy_of_one(logits_bc[0].tolist())
            return entropy, entropy < self.threshold(layer)

        return by_entropy if self.rule == "entropy" else by_rule

    def threshold(self, layer: int) -> float:
        """The exit threshold after `layer`, from 1."""
        return self.exit_threshold if self.exit_thresholds is None else self.exit_thresholds[layer - 1]

    def with_defaults_of(self, own: Policy) -> Policy:
        """This policy; what is not given, of the skip threshold and of the exit rule with its thresholds, from `own`.

        `Policy(deadline_ms=5)` is then a deadline added to `own`, and not one without early exits.
        """
        changes: dict[str, object] = {}
        if isinstance(self.skip_threshold, NotGiven):
            changes |= {"skip_threshold": own.skip_threshold, "no_skip": self.no_skip or own.no_skip}
        exits_given = self.exit_thresholds is not None or self.rule != Policy.rule
        if isinstance(self.exit_threshold, NotGiven) and not exits_given:
            changes |= {name: getattr(own, name) for name in ("rule", "exit_threshold", "exit_thresholds", "patience")}
            changes["no_exit"] = self.no_exit or own.no_exit
        return replace(self, **changes) if changes else self  # type: ignore[arg-type]

    def at_full_depth(self) -> Policy:
        """The same policy with every layer run and only the last head evaluated."""
        return replace(self, no_skip=True, no_exit=True, max_layers=None, deadline_ms=None)
